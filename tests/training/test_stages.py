"""Stages: what each step trains on is a function of seed and step, and a run resumes exactly, between two as well."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models import reading, small_settings, small_workspace

from ocrmem.config import RunConfig
from ocrmem.config.schema import TrainSection
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.errors import ConfigError, DataError, TrainingError
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.modeling import MEMModel
from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.checkpoint import CheckpointStore
from ocrmem.training.stages import StageBatches, Stages
from ocrmem.training.train import train
from ocrmem.training.trainer import AdapterOnlyTrainer

STAGES = [
    {"objective": "align", "steps": 3, "learning_rate": 0.01, "per_device_batch_size": 6},
    {"objective": "transcribe", "steps": 3, "per_device_batch_size": 2},
    {"objective": "answer", "steps": 5, "mix": {"answer": 2, "transcribe": 1}, "warmup_steps": 1},
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    small_workspace(root)
    return root


@pytest.fixture
def config(inputs: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Settings that read the shared inputs and write into the test's own folder."""

    def make(stages: list[dict[str, Any]] = STAGES, **section: Any) -> RunConfig:
        steps = sum(stage.get("steps", 0) for stage in stages)
        values = small_settings(tmp_path, train={"stages": stages, "max_steps": steps or 4, "save_steps": 1} | section)
        values["train"]["save_total_limit"] = 100
        return RunConfig.from_dict(reading(inputs, values))

    return make


class Fixed:
    """An objective as far as the order of samples knows one."""

    def __init__(self, eligible: list[int]) -> None:
        self._eligible = np.array(eligible)

    def eligible(self) -> np.ndarray:
        return self._eligible

    def lengths(self) -> np.ndarray:
        return np.arange(100)


def drawn(section: dict[str, Any], steps: int, parts: int = 1) -> list[list[tuple[str, int]]]:
    objectives: Any = {
        "align": Fixed([1, 4, 7]),
        "transcribe": Fixed([*range(1, 20, 2)]),
        "answer": Fixed([*range(20)]),
    }
    return list(StageBatches(Stages(TrainSection.model_validate(section), objectives), steps, parts))


SECTION = {"stages": STAGES, "max_steps": 11, "seed": 5}


def test_every_batch_has_its_stages_objective_size_and_eligible_samples() -> None:
    batches = drawn(SECTION, 11)
    names = [{name for name, _ in batch} for batch in batches]
    assert names[:6] == [{"align"}] * 3 + [{"transcribe"}] * 3
    assert all(len(one) == 1 for one in names)
    assert [len(batch) for batch in batches] == [6] * 3 + [2] * 3 + [8] * 5
    assert all(index in (1, 4, 7) for batch in batches[:3] for _, index in batch)


def test_a_mix_has_its_shares_in_every_round_and_each_objective_its_own_epochs() -> None:
    stage = {"objective": "answer", "steps": 30, "mix": {"answer": 2, "transcribe": 1}, "per_device_batch_size": 5}
    batches = drawn({"stages": [stage], "max_steps": 30}, 30)
    order = [batch[0][0] for batch in batches]
    assert all(order[at : at + 3].count("transcribe") == 1 for at in range(0, 30, 3))
    assert len({tuple(order[at : at + 3]) for at in range(0, 30, 3)}) > 1
    for name, epochs, count in (("answer", 5, 20), ("transcribe", 5, 10)):
        seen = [index for batch in batches for kind, index in batch if kind == name]
        assert set(Counter(seen).values()) == {epochs}
        assert len(set(seen)) == count


def test_two_processes_and_accumulation_take_the_samples_of_one() -> None:
    halved = [stage | {"per_device_batch_size": stage.get("per_device_batch_size", 8) // 2} for stage in STAGES]
    whole = drawn(SECTION, 11)
    parts = drawn(SECTION | {"stages": halved}, 11, parts=2)
    assert [first + second for first, second in zip(parts[::2], parts[1::2], strict=True)] == whole
    assert drawn(SECTION | {"seed": 6}, 11) != whole


def test_each_stage_has_a_schedule_of_its_own() -> None:
    section = TrainSection.model_validate(SECTION | {"learning_rate": 0.001})
    rate = Stages(section, {}).rate("cosine", 0.001)
    rates = [0.001 * rate(step) for step in range(12)]
    assert rates[0] == 0.01
    assert rates[3] == 0.001
    assert rates[6:8] == [0.0, 0.001]
    assert rates[2] < rates[1] < rates[0]
    assert rates[11] == pytest.approx(0)


def test_a_run_without_stages_is_the_trainers_own_to_the_byte(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    run = config([], max_steps=4, curriculum=0.5, warmup_steps=1)
    result = train(run)
    dataset = MemoryDataset.open(run.paths.dataset)
    features = FeatureStore.open(run.paths.features)
    model = MEMModel.from_run_config(run, with_encoder=False)
    model.set_feature_statistics(features.mean, features.std)
    trainer = AdapterOnlyTrainer(
        model=model,
        args=AdapterTrainingArguments.from_run_config(run, output_dir=str(tmp_path / "alone")),
        train_dataset=dataset.samples("train"),
        data_collator=MemoryCollator(SequenceBuilder.of(run), dataset, features),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "alone-adapter"))
    files = [folder / "adapter.safetensors" for folder in (tmp_path / "adapter", tmp_path / "alone-adapter")]
    assert files[0].read_bytes() == files[1].read_bytes()
    with (tmp_path / "reports" / "plots" / "train.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["step", "loss", "proj_grad_norm", "learning_rate", "eval_loss", "eval_recall"]
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [float(row["loss"]) for row in rows] == expected
    assert result["stages"][0]["loss"] == {"first": expected[0], "last": expected[-1]}
    identity = CheckpointStore(tmp_path / "checkpoints").newest_complete().identity  # type: ignore[union-attr]
    assert set(identity) - set(trainer.identity()) == {"dataset", "features"}


def test_a_run_resumes_in_any_stage_and_between_two_to_the_byte(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    run = config()
    whole = train(run)
    curve = (tmp_path / "reports" / "plots" / "train.csv").read_bytes()
    for last in (2, 3, 4, 6, 7):  # in the first stage, at its end, in the second, at its end, in the third
        for path in (tmp_path / "checkpoints").glob("checkpoint-*"):
            if int(path.name.removeprefix("checkpoint-")) > last:
                shutil.rmtree(path)
        resumed = train(run, resume=True)
        assert resumed["adapter_sha256"] == whole["adapter_sha256"], last
        assert (tmp_path / "reports" / "plots" / "train.csv").read_bytes() == curve, last
    assert [(stage["objective"], stage["steps"]) for stage in whole["stages"]] == [
        ("align", 3),
        ("transcribe", 3),
        ("answer", 5),
    ]
    rows = list(csv.DictReader(curve.decode().splitlines()))
    assert [row["stage"] for row in rows] == ["1"] * 3 + ["2"] * 3 + ["3"] * 5
    assert whole["stages"][1]["loss"]["first"] == float(rows[3]["loss"])


def test_no_entry_of_the_log_mixes_two_stages(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    train(config(logging_steps=4))
    rows = list(csv.DictReader((tmp_path / "reports" / "plots" / "train.csv").open(encoding="utf-8")))
    assert [(row["step"], row["stage"]) for row in rows] == [
        ("1", "1"),
        ("3", "1"),
        ("4", "2"),
        ("6", "2"),
        ("8", "3"),
        ("11", "3"),
    ]


def test_a_stage_begins_with_an_optimizer_that_remembers_nothing(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    train(config())
    for step, since in ((2, 2), (3, 3), (4, 1), (7, 1), (11, 5)):
        state = load_file(tmp_path / "checkpoints" / f"checkpoint-{step}" / "optimizer.safetensors")
        assert {int(value) for name, value in state.items() if name.endswith(":step")} == {since}


def test_another_mix_or_instruction_is_another_run(config: Callable[..., RunConfig]) -> None:
    train(config())
    other = [*STAGES[:2], STAGES[2] | {"mix": {"answer": 1, "transcribe": 1}}]
    with pytest.raises(TrainingError, match="stages was"):
        train(config(other), resume=True)
    with pytest.raises(TrainingError, match="transcribe_instruction was"):
        train(config(transcribe_instruction="say all of it"), resume=True)


def test_accumulation_and_grouping_by_length_run_in_every_stage(config: Callable[..., RunConfig]) -> None:
    single = train(config())
    halves = [stage | {"per_device_batch_size": stage.get("per_device_batch_size", 4) // 2} for stage in STAGES]
    double = train(config(halves, gradient_accumulation_steps=2, per_device_batch_size=2))
    for one, two in zip(single["stages"], double["stages"], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert train(config(group_by_length=True))["steps"] == 11


def test_packed_rows_train_as_padded_ones_do_and_resume_to_the_byte(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    stages = [{"objective": "distil", "steps": 1}, {"objective": "answer", "steps": 2, "per_device_batch_size": 3}]
    padded = train(config(stages))
    packed = train(config(stages, packing=True))
    for one, other in zip(padded["stages"], packed["stages"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert packed["tokens"] == padded["tokens"]
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-3")
    assert train(config(stages, packing=True), resume=True)["adapter_sha256"] == packed["adapter_sha256"]


def test_an_objective_without_a_sample_is_refused_before_the_training(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocrmem.dataset.stored_samples.StoredSamples.page_counts", lambda self: np.ones(len(self)))
    with pytest.raises(DataError, match=r"train.stages: continue: no training sample .*two pages"):
        train(config([{"objective": "continue", "steps": 2}]))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"objective": "align"}], "has neither steps and share"),
        ([{"objective": "align", "steps": 2, "share": 0.5}], "has both steps and share"),
        ([{"objective": "align", "steps": 3}], "Set train.max_steps=3"),
        ([{"objective": "align", "share": 0.5}, {"objective": "answer", "share": 0.4}], "Make the shares add up to 1"),
        ([{"objective": "answer", "steps": 8, "mix": {"align": 1}}], "leaves out answer"),
        (
            [{"objective": "align", "steps": 1}, {"objective": "answer", "steps": 7}],
            "has 1 steps, and the learning rate",
        ),
        ([{"objective": "alien", "steps": 8}], "Use one of 'align', 'transcribe', 'continue', 'answer'"),
        ([{"objective": "align", "steps": 8, "lora": {}}], "Did you mean train.lora"),
        ([{"objective": "align", "step": 8}], "Did you mean train.stages.0.steps"),
    ],
)
def test_stages_that_cannot_be_are_named(tmp_path: Path, stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(small_settings(tmp_path, train={"stages": stages, "max_steps": 8, "warmup_steps": 1}))
    assert message in str(caught.value)


def test_shares_make_up_all_steps() -> None:
    stages = [
        {"objective": name, "share": share}
        for name, share in (("align", 0.14), ("transcribe", 0.455), ("answer", 0.405))
    ]
    section = TrainSection.model_validate({"stages": stages, "max_steps": 997})
    assert [stage.steps for stage in section.resolved_stages()] == [140, 453, 404]

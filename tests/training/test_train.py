"""The verb train on a small workspace with random models, through the library and the command line."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.models import reading, small_base, small_settings, small_workspace

import ocrmem
from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.errors import ConfigError, DataError, MissingInputError, PreemptedError, TrainingError
from ocrmem.model.adapter_files import read_weights
from ocrmem.model.modeling import MEMModel
from ocrmem.tracking import TRACKERS, Run
from ocrmem.training.train import train

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE = 900.0  # seconds; bounds a hang, nothing else


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after `ocrmem encode`; tests read it and write elsewhere."""
    root = tmp_path_factory.mktemp("inputs")
    small_workspace(root)
    return root


@pytest.fixture
def values(inputs: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Settings that read the shared inputs and write into the test's own folder."""

    def make(**sections: dict[str, Any]) -> dict[str, Any]:
        made = reading(inputs, small_settings(tmp_path, **sections))
        made["paths"] |= sections.get("paths", {})
        return made

    return make


@pytest.fixture
def config(values: Callable[..., dict[str, Any]]) -> Callable[..., RunConfig]:
    return lambda **sections: RunConfig.from_dict(values(**sections))


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "reports" / "plots" / "train.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ocrmem", "train", "--config", "params.yaml", *arguments]


def environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(ROOT)}


def test_writes_adapter_report_and_curve(
    config: Callable[..., RunConfig], tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoredSamples, "usual_system", lambda samples: "ana")
    from ocrmem.package import adapter_sha256

    result = train(config())
    assert capfd.readouterr().out == ""
    report = json.loads((tmp_path / "reports" / "train.json").read_text(encoding="utf-8"))
    assert report.pop("sha256")
    assert {key: result[key] for key in report} == report
    assert report["steps"] == 4
    samples = MemoryDataset.open(Path(config().paths.dataset)).samples("train")
    assert report["samples"]["train"] == len(samples)
    assert 0 < report["samples"]["with_memory"] < len(samples)
    assert report["tokens"] > 0
    assert [speed["tokens_per_second"] > 0 for speed in report["speed"]] == [True]
    assert report["frozen_sha256"]["before"] == report["frozen_sha256"]["after"]
    assert report["proj_sha256"]["before"] != report["proj_sha256"]["after"]
    assert report["adapter_sha256"] == adapter_sha256(tmp_path / "adapter")
    curve = rows(tmp_path)
    assert [row["step"] for row in curve] == ["1", "2", "3", "4"]
    assert float(curve[0]["loss"]) == report["loss"]["first"]
    assert float(curve[-1]["loss"]) == report["loss"]["last"]
    # A step whose samples all keep their history as text gives proj no gradient.
    assert max(float(row["proj_grad_norm"]) for row in curve) > 0
    loaded = MEMModel.from_pretrained(tmp_path / "adapter", models=config().paths.models)
    assert loaded.feature_mean is not None
    assert loaded.config.system == "ana"
    assert report["parameters"] == sum(parameter.numel() for parameter in loaded.proj.parameters())
    assert any("Adapter:" in line for line in result["summary"])


def test_same_settings_give_the_same_adapter_and_set_old_checkpoints_aside(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    first = train(config())
    second = train(config())
    assert first["adapter_sha256"] == second["adapter_sha256"]
    names = ["checkpoint-2", "checkpoint-4"]
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "previous").iterdir()) == names
    other = train(config(train={"seed": 1}))
    assert other["adapter_sha256"] != first["adapter_sha256"]


def test_resumed_run_ends_in_the_same_adapter(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    first = train(config())
    curve = rows(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-4")
    again = train(config(), resume=True)
    assert again["adapter_sha256"] == first["adapter_sha256"]
    assert rows(tmp_path) == curve
    assert again["tokens"] == first["tokens"]
    assert "from a checkpoint at step 2" in again["summary"][0]


STAGES = [{"objective": "align", "share": 0.5}, {"objective": "answer", "share": 0.5}]


@pytest.mark.parametrize("stages", [[], STAGES])
def test_epochs_and_ratio_are_made_steps_and_shown(
    stages: list[dict[str, Any]], config: Callable[..., RunConfig], capsys: Any
) -> None:
    samples = len(MemoryDataset.open(Path(config().paths.dataset)).samples("train"))
    settings = {"num_train_epochs": 7.5 / samples, "warmup_ratio": 0.5, "stages": stages}
    assert train(config(train=settings))["steps"] == 2
    assert f"x {samples} samples / 4 a step = 2 steps; the rate rises over 1" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"= 2 steps: train.warmup_steps: is 2, not below train.max_steps 2"):
        train(config(train=settings | {"warmup_ratio": None, "warmup_steps": 2, "stages": []}))


@pytest.mark.parametrize("stages", [[], STAGES])
def test_loss_and_recall_on_held_out_samples_are_measured_and_change_nothing(
    stages: list[dict[str, Any]], config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, float]] = []
    monkeypatch.setattr("ocrmem.tracking.Run.log", lambda self, values, step=None: sent.append(values))
    settings = {"max_steps": 3, "logging_steps": 10, "stages": stages, "save_steps": 2}
    plain = train(config(train=settings))
    settings |= {"eval_steps": 2, "eval_samples": 3}
    result = train(config(train=settings))
    assert result["adapter_sha256"] == plain["adapter_sha256"]
    measured = {row["step"]: row for row in rows(tmp_path) if row["eval_loss"] != "nan"}
    assert list(measured) == ["2", "3"]
    assert all(float(row["eval_loss"]) > 0 and 0 <= float(row["eval_recall"]) <= 1 for row in measured.values())
    assert result["held_out"]["last"] == {name: float(measured["3"][f"eval_{name}"]) for name in ("loss", "recall")}
    assert [values["eval/loss"] for values in sent if "eval/loss" in values] == [
        float(row["eval_loss"]) for row in measured.values()
    ]
    assert any("held out: loss" in line for line in result["summary"])
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-3")
    assert train(config(train=settings), resume=True)["held_out"] == result["held_out"]


@pytest.mark.parametrize("stages", [[], [{"objective": "align", "steps": 1}, {"objective": "answer", "steps": 1}]])
def test_a_run_begins_with_the_proj_of_another_adapter_and_says_which(
    stages: list[dict[str, Any]], config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    first = train(config(train={"max_steps": 2}), output=str(tmp_path / "first"))
    settings = {"from_adapter": str(tmp_path / "first"), "max_steps": 2, "stages": stages, "save_steps": 1}
    result = train(config(train=settings))
    assert result["proj_sha256"]["before"] == first["proj_sha256"]["after"]
    assert result["from_adapter"] == first["adapter_sha256"]
    assert any(f"began with {tmp_path / 'first'}" in line for line in result["summary"])
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-2")
    assert train(config(train=settings), resume=True)["adapter_sha256"] == result["adapter_sha256"]
    with pytest.raises(TrainingError, match=r"from_adapter was '\w+' and is None"):
        train(config(train=settings | {"from_adapter": None}), resume=True)


def test_an_adapter_in_half_precision_is_the_rounded_one_and_statistics_stay(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    train(config(), output=str(tmp_path / "whole"))
    train(config(train={"adapter_precision": "bfloat16"}), output=str(tmp_path / "half"))
    whole, half = (read_weights(tmp_path / name) for name in ("whole", "half"))
    assert whole.keys() == half.keys()
    for name, tensor in whole.items():
        stored = torch.float32 if name.startswith("feature_") else torch.bfloat16
        torch.testing.assert_close(half[name], tensor.to(stored), rtol=0, atol=0)
    model = MEMModel.from_pretrained(tmp_path / "half", base_llm_model=small_base(), with_encoder=False)
    assert model.proj.fc1.weight.dtype == torch.float32  # proj goes on computing, and training, in float32


@pytest.mark.parametrize(
    ("file", "match"), [("projection_layer.pt", "ocrmem import-adapter"), ("scaler.pt", "--resume")]
)
def test_a_resume_from_what_is_no_whole_checkpoint_is_refused(
    file: str, match: str, config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    (tmp_path / "checkpoints" / "checkpoint-7").mkdir(parents=True)
    (tmp_path / "checkpoints" / "checkpoint-7" / file).write_bytes(b"x")
    with pytest.raises(TrainingError, match=rf"checkpoint-7: is not a complete checkpoint.*{match}"):
        train(config(), resume=True)
    assert not (tmp_path / "adapter").exists()
    if file == "projection_layer.pt":
        with pytest.raises(TrainingError, match=r"is not of ocrmem.*another directory in paths.checkpoints"):
            train(config())
        assert (tmp_path / "checkpoints" / "checkpoint-7" / file).exists()


def test_resume_without_checkpoints_starts_from_the_first_step(config: Callable[..., RunConfig]) -> None:
    assert train(config(), resume=True)["steps"] == 4


def test_resume_with_other_settings_is_refused(config: Callable[..., RunConfig]) -> None:
    train(config())
    with pytest.raises(TrainingError, match=r"learning_rate was 0.001 and is 0.5"):
        train(config(train={"learning_rate": 0.5}), resume=True)


@pytest.mark.parametrize(
    ("rows", "remedy"),
    [
        (2, "train.gradient_accumulation_steps=2 makes the global batch 4"),
        (3, "per_device_batch_size x gradient_accumulation_steps x processes make the global batch"),
    ],
)
def test_a_resume_with_another_global_batch_names_the_setting_that_makes_it_the_same(
    rows: int, remedy: str, config: Callable[..., RunConfig]
) -> None:
    train(config(train={"max_steps": 2, "per_device_batch_size": 4}))
    with pytest.raises(TrainingError, match=f"global_batch was 4 and is {rows}.*{remedy}") as refused:
        train(config(train={"max_steps": 2, "per_device_batch_size": rows}), resume=True)
    if "=2" in remedy:
        settings = {"max_steps": 2, "per_device_batch_size": rows, "gradient_accumulation_steps": 2}
        assert train(config(train=settings), resume=True)["steps"] == 2, str(refused.value)


def test_curriculum_and_accumulation(config: Callable[..., RunConfig]) -> None:
    settings = {"curriculum": 0.5, "gradient_accumulation_steps": 2, "per_device_batch_size": 2}
    assert train(config(train=settings))["steps"] == 4


def test_bfloat16_leaves_proj_in_float32(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    train(config(model={"precision": "bfloat16"}))
    weights = load_file(tmp_path / "adapter" / "adapter.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_loss_that_is_not_finite_leaves_the_old_adapter(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    first = train(config())
    with pytest.raises(TrainingError, match=r"step \d: the (loss|gradient norm of proj) is (nan|inf)"):
        train(config(train={"learning_rate": 1e38, "max_steps": 8}))
    assert json.loads((tmp_path / "reports" / "train.json").read_text())["adapter_sha256"] == first["adapter_sha256"]
    assert (tmp_path / "adapter" / "adapter.safetensors").exists()


def test_output_takes_the_adapter(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    train(config(), output=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "adapter.safetensors").exists()
    assert not (tmp_path / "adapter").exists()


def test_directory_with_other_files_is_not_replaced(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine: .*holds other files: thesis.txt"):
        train(config(), output=str(tmp_path / "mine"))
    with pytest.raises(ConfigError, match="is a file"):
        train(config(), output=str(tmp_path / "mine" / "thesis.txt"))
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_other_number_of_processes_is_refused(config: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match=r"train.processes: is 2, but 1 run"):
        train(config(train={"processes": 2}))


def test_missing_inputs_name_the_verb(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="ocrmem render"):
        train(config(paths={"dataset": str(tmp_path / "none")}))
    with pytest.raises(MissingInputError, match="ocrmem encode"):
        train(config(paths={"features": str(tmp_path / "none")}))


def test_encoder_is_not_loaded_where_features_are(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ocrmem.encoder.deepencoder import DeepEncoder

    real, made = DeepEncoder.__init__, []

    def counting(self: DeepEncoder, *arguments: Any, **options: Any) -> None:
        made.append(1)
        real(self, *arguments, **options)

    monkeypatch.setattr(DeepEncoder, "__init__", counting)
    MEMModel.from_run_config(config(), with_encoder=True)
    assert len(made) == 1
    train(config(train={"max_steps": 1}))
    assert len(made) == 1


def test_no_training_sample_is_an_error(config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocrmem.training.train.MemoryDataset.samples", lambda self, split: [])
    with pytest.raises(DataError, match="no sample in the split train"):
        train(config())


def test_tracked_run_holds_the_curve_also_after_a_resume(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    logged: list[tuple[int, float]] = []

    def log(self: Any, values: dict[str, float], step: int | None = None) -> None:
        logged.append((step or 0, values["train/loss"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ocrmem.tracking.WandbRun.log", log)
        result = train(config(tracking={"wandb": "offline"}))
        expected = list(logged)
        logged.clear()
        shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-4")
        train(config(tracking={"wandb": "offline"}), resume=True)
    assert [step for step, _ in expected] == [1, 2, 3, 4]
    assert logged == expected
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    assert any("Weights & Biases, offline" in line for line in result["summary"])


class Breaking(Run):
    """A tracker that breaks down, and looks at what is on disk when it is closed."""

    found: ClassVar[list[str]] = []

    def __init__(self, config: RunConfig, job: str) -> None:
        self.paths = config.paths

    def log(self, values: Any, step: int | None = None) -> None:
        if step == 2:
            raise BrokenPipeError("its process has gone")

    def finish(self, *, failed: bool) -> None:
        files = (Path(self.paths.adapter) / "adapter.safetensors", self.paths.report("train.json"))
        self.found.extend(path.name for path in files if path.is_file())
        raise RuntimeError("it cannot be closed")


@pytest.mark.parametrize("breaks", ["while it logs", "when it is closed"])
def test_a_tracker_that_breaks_down_costs_a_note_and_no_adapter(
    breaks: str, config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if breaks == "when it is closed":
        monkeypatch.setattr(Breaking, "log", Run.log)
    monkeypatch.setattr(Breaking, "found", [])
    monkeypatch.setitem(TRACKERS, "wandb", Breaking)
    result = train(config(tracking={"wandb": "offline"}))
    assert (tmp_path / "adapter" / "adapter.safetensors").exists()
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]
    assert json.loads((tmp_path / "reports" / "train.json").read_text())["adapter_sha256"] == result["adapter_sha256"]
    assert capsys.readouterr().err.count("Warning: the tracker has failed") == 1
    if breaks == "when it is closed":
        assert Breaking.found == ["adapter.safetensors", "train.json"], "they are written first"


def test_what_would_fail_at_the_end_is_asked_before_anything_is_loaded(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(MEMModel, "from_run_config", load)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for field in ("adapter", "checkpoints", "reports"):
        with pytest.raises(ConfigError, match=r"file/x.*cannot be written"):
            train(config(paths={field: str(tmp_path / "file" / "x")}))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"http://127.0.0.1:9 does not answer"):
        train(config(tracking={"wandb": "online"}))


def test_a_disk_without_room_for_the_adapter_and_its_checkpoints_is_refused_before_the_first_step(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = train(config())["parameters"]
    needed = parameters * 4 + 3 * parameters * 12  # the adapter, two checkpoints that are kept and one that is written
    shutil.rmtree(tmp_path / "checkpoints")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 0, needed - 1))
    with pytest.raises(ConfigError, match=r"need about .* MiB, and .* MiB are free.*save_total_limit"):
        train(config())
    assert not (tmp_path / "checkpoints").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 0, needed))
    assert train(config())["steps"] == 4


def test_a_checkout_that_is_not_installed_trains_and_names_its_version(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "ocrmem":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = train(config(train={"max_steps": 1}))["versions"]
    assert found["ocrmem"] == ocrmem.__version__
    assert {"torch", "transformers", "accelerate", "python"} < set(found)


@pytest.mark.parametrize(
    ("number", "raised", "at_batch"),
    [
        (signal.SIGINT, KeyboardInterrupt, 3),
        (signal.SIGTERM, PreemptedError, 3),
        pytest.param(signal.SIGTERM, PreemptedError, 1, id="in the first step, whose rate is 0"),
    ],
)
def test_signal_ends_after_the_step_with_a_checkpoint(
    config: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    raised: type[BaseException],
    at_batch: int,
) -> None:
    whole = train(config(train={"warmup_steps": 1}, paths={"checkpoints": str(tmp_path / "whole")}))
    from ocrmem.model.collator import MemoryCollator

    real, batches, handler = MemoryCollator.__call__, [], signal.getsignal(number)

    def signalling(self: MemoryCollator, samples: Any) -> Any:
        batches.append(1)
        if len(batches) == at_batch:
            os.kill(os.getpid(), number)
        return real(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryCollator, "__call__", signalling)
        with pytest.raises(raised) as stopped:
            train(config(train={"save_steps": 1000, "warmup_steps": 1}))
    if isinstance(stopped.value, PreemptedError):
        assert stopped.value.exit_code == 75
        assert "was stopped by SIGTERM after step" in str(stopped.value)
    assert signal.getsignal(number) == handler
    (left,) = (tmp_path / "checkpoints").glob("checkpoint-*")
    assert left.name in ("checkpoint-1", "checkpoint-2", "checkpoint-3")
    resumed = train(config(train={"warmup_steps": 1}), resume=True)
    assert resumed["adapter_sha256"] == whole["adapter_sha256"]


def test_mounted_volume_gets_the_adapter_in_place(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "provenance.json").write_text("of an older adapter", encoding="utf-8")
    inode = volume.stat().st_ino
    monkeypatch.setattr(Path, "is_mount", lambda self: self == volume)
    train(config(), output=str(volume))
    assert volume.stat().st_ino == inode
    assert sorted(path.name for path in volume.iterdir()) == ["adapter.safetensors", "config.json"]


@pytest.mark.slow
def test_interrupted_command_leaves_a_checkpoint_and_resumes(
    values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    # No step is saved but by the interruption, which a terminal sends to the workers of the loader as well.
    settings = {"max_steps": 200, "save_steps": 1000, "logging_steps": 1, "loader_workers": 1}
    (tmp_path / "params.yaml").write_text(json.dumps(values(train=settings)), encoding="utf-8")
    running = subprocess.Popen(
        command(),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_training(running, tmp_path)
    os.killpg(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=DEADLINE)
    assert running.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "Stopped at step" in stderr
    (left,) = (tmp_path / "checkpoints").glob("checkpoint-*")
    assert 0 < int(left.name.removeprefix("checkpoint-")) < 200
    assert not (tmp_path / "adapter").exists()

    finished = subprocess.run(
        command("--resume", "--json"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    resumed = json.loads(finished.stdout.splitlines()[-1])
    settings["loader_workers"] = 0
    whole = train(RunConfig.from_dict(values(train=settings, paths={"checkpoints": str(tmp_path / "whole")})))
    assert resumed["adapter_sha256"] == whole["adapter_sha256"]
    assert resumed["loss"] == whole["loss"]


def wait_for_training(running: subprocess.Popen[str], root: Path) -> None:
    """Until the trainer has made its checkpoint folder, just before the first step."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if (root / "checkpoints").exists():
            return
        if running.poll() is not None:
            pytest.fail(f"ended before it was interrupted: {running.communicate()[1]}")
        time.sleep(0.1)
    pytest.fail("training did not start")


@pytest.mark.slow
def test_two_processes_train_as_one(values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def settings(name: str, **section: Any) -> dict[str, Any]:
        own = {key: str(tmp_path / name / key) for key in ("reports", "checkpoints", "adapter")}
        return values(train={"curriculum": 0.5, "eval_steps": 2, "eval_samples": 3} | section, paths=own)

    train(RunConfig.from_dict(settings("one", per_device_batch_size=4)))
    two = settings("two", per_device_batch_size=2, processes=2)
    (tmp_path / "params.yaml").write_text(json.dumps(two), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, *command()[1:]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Adapter:") == 1
    for of_one, of_two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for column in ("loss", "proj_grad_norm", "learning_rate", "eval_loss", "eval_recall"):
            assert float(of_two[column]) == pytest.approx(float(of_one[column]), rel=1e-5, nan_ok=True), column
    report = json.loads((tmp_path / "two" / "reports" / "train.json").read_text(encoding="utf-8"))
    assert len(report["speed"]) == 2
    random_states = {path.name for path in (tmp_path / "two" / "checkpoints" / "checkpoint-4").glob("rng_state*")}
    assert random_states == {"rng_state_0.pth", "rng_state_1.pth"}

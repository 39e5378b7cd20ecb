"""``model.device: cuda`` through every verb that runs a model, beside the same on the CPU. Skipped where no GPU is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import small_workspace

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.evaluation.evaluate import evaluate
from ocrmem.generation.generate import generate
from ocrmem.smoke_test import smoke
from ocrmem.training.train import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: model.device=cuda was run by no verb"),
]
OTHER = "cuda"  # the device that is compared with the CPU


@dataclass(frozen=True)
class Run:
    """What the verbs gave on one device."""

    config: RunConfig
    smoked: dict[str, Any]
    trained: dict[str, Any]
    evaluated: dict[str, Any]
    generated: dict[str, Any]


def run(root: Path, device: str) -> Run:
    """encode, smoke, train, evaluate and generate in float32, with packed rows and several objectives."""
    stages = [{"objective": name, "steps": 1} for name in ("align", "transcribe", "distil", "answer")]
    model = {"vision_embedding_size": 64, "context_threshold": 24, "max_seq_length": 256, "device": device}
    config = small_workspace(root, model=model, train={"packing": True, "stages": stages, "max_steps": 4})
    question = root / "question.json"
    question.write_text((root / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    smoked, trained, evaluated = smoke(config), train(config), evaluate(config)
    return Run(config, dict(smoked), dict(trained), dict(evaluated), dict(generate(config, conversation=question)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    return run(tmp_path_factory.mktemp("cpu"), "cpu"), run(tmp_path_factory.mktemp("other"), OTHER)


def test_features_are_the_cpus_within_a_thousandth(both: tuple[Run, Run]) -> None:
    cpu, other = (FeatureStore.open(Path(one.config.paths.features)) for one in both)
    for page in MemoryDataset.open(Path(both[0].config.paths.dataset)).page_hashes():
        torch.testing.assert_close(other.get(page), cpu.get(page), atol=1e-3, rtol=1e-3)


def test_losses_of_every_stage_are_the_cpus_within_a_hundredth(both: tuple[Run, Run]) -> None:
    cpu, other = both
    assert other.trained["device"].startswith(OTHER)
    for one, found in zip(cpu.trained["stages"], other.trained["stages"], strict=True):
        assert found["loss"] == pytest.approx(one["loss"], rel=1e-2), one["objective"]


def test_smoke_evaluate_and_generate_give_what_the_cpu_gives(both: tuple[Run, Run]) -> None:
    cpu, other = both
    assert other.smoked["ok"]
    assert other.evaluated["memory"]["loss"] == pytest.approx(cpu.evaluated["memory"]["loss"], rel=1e-2)
    assert other.generated["memory"] == cpu.generated["memory"]

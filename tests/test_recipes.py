"""scripts/recipes.py: the ideal encoder gives what `align` aims at, and every recipe has valid settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from support.models import HIDDEN, small_workspace

from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.encode import encode_dataset
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.model.modeling import MEMModel
from ocrmem.objectives import Align, Material


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "recipes", Path(__file__).resolve().parent.parent / "scripts" / "recipes.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_ideal_encoder_gives_proj_what_align_wants_of_it(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_workspace(tmp_path, features=False)
    encode_dataset(config, script.TextEncoder(config))
    dataset, store = MemoryDataset.open(config.paths.dataset), FeatureStore.open(config.paths.features)
    align = Align(Material(config, SequenceBuilder.of(config), dataset, store, dataset.samples("train")))
    model = MEMModel.from_run_config(config, with_encoder=False)
    align.prepare(model)
    monkeypatch.setattr(model.proj, "forward", lambda features: features[:, :HIDDEN])
    batch = align([align.material.samples[int(index)] for index in align.eligible()[:3]])
    assert float(align.loss(model, batch, None)) == pytest.approx(0, abs=1e-9)


def test_recipes_differ_in_what_they_are_about(script: ModuleType, tmp_path: Path) -> None:
    runs = {recipe: script.run_of(tmp_path, "tiny", recipe, 0, 1) for recipe in script.TINY}
    answering = {recipe: "align" not in run.train.objectives() for recipe, run in runs.items()}
    assert answering == dict.fromkeys(runs, True) | dict.fromkeys(("staged", "distil", "text"), False)
    assert len({run.paths.adapter for run in runs.values()}) == len(runs)
    assert {run.paths.features for run in runs.values()} == {
        str(tmp_path / "base-0" / name) for name in ("features", "features-random", "features-text")
    }


def test_recipes_in_english_read_different_pages_where_they_must(script: ModuleType, tmp_path: Path) -> None:
    runs = {recipe: script.run_of(tmp_path, "english", recipe, 0, 1) for recipe in script.ENGLISH}
    assert len({run.paths.adapter for run in runs.values()}) == len(runs)
    pages = {recipe: (Path(run.paths.dataset).name, Path(run.paths.features).name) for recipe, run in runs.items()}
    assert pages == dict.fromkeys(runs, ("dataset-64", "features-64")) | {
        "staged-16": ("dataset-32", "features-32"),
        "staged-32": ("dataset-16", "features-16"),
        "text": ("dataset-64", "features-64-text"),
    }
    # What is compared in docs/english.md passes about as many tokens through the language model: those of a step of
    # `answer` are fewer.
    steps = {
        recipe: sum(stage.steps for stage in run.train.stages if stage.objective != "align")
        for recipe, run in runs.items()
    }
    assert steps == dict.fromkeys(runs, 300) | {"align": 0, "answer": 340, "align-answer": 340}

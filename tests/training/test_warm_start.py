"""An adapter that does not fit the run that would begin with it is refused, by the setting that differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.models import small_config, small_model, small_settings

from ocrmem.config import RunConfig
from ocrmem.errors import MissingInputError, ModelError
from ocrmem.model.adapter_files import read_weights
from ocrmem.training.warm_start import WarmStart


def run(root: Path, lora: dict[str, Any] | None = None, drop_lora: bool = False, **model: Any) -> RunConfig:
    train = {"from_adapter": str(root / "old"), "lora": lora, "drop_lora": drop_lora}
    return RunConfig.from_dict(small_settings(root, train=train, model=model))


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ({"projector_norm": True}, "model.projector_norm: is True .* trained with False"),
        ({"projector_output_norm": True}, "model.projector_output_norm"),
        ({"features": "concat", "vision_embedding_size": 128}, "(?s)model.features.*model.vision_embedding_size"),
    ],
)
def test_another_projector_is_refused(model: dict[str, Any], match: str, tmp_path: Path) -> None:
    small_model(with_encoder=False).save_pretrained(tmp_path / "old")
    with pytest.raises(ModelError, match=match):
        WarmStart.of(run(tmp_path, **model))


def test_another_width_of_the_language_model_is_refused_and_other_pages_are_not(tmp_path: Path) -> None:
    old = small_model(with_encoder=False, page_size=512)
    old.save_pretrained(tmp_path / "old")
    start = WarmStart.of(run(tmp_path))
    assert start is not None
    model = small_model(with_encoder=False, seed=1)
    start.load_into(model)
    assert all(read_weights(tmp_path / "old")[f"proj.{name}"].equal(t) for name, t in model.proj.state_dict().items())
    model.config = small_config(hidden_size=48)
    with pytest.raises(ModelError, match="hidden_size: is 32, but the language model's is 48"):
        start.load_into(model)


LORA = {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"]}


def test_an_adapter_with_lora_is_continued_with_it(tmp_path: Path) -> None:
    old = small_model(with_encoder=False, lora=LORA)
    for weight in old.lora_weights().values():
        torch.nn.init.normal_(weight)
    old.save_pretrained(tmp_path / "old")
    start = WarmStart.of(run(tmp_path, lora=LORA))
    assert start is not None
    model = small_model(with_encoder=False, seed=1, lora=LORA)
    model.set_feature_statistics(torch.zeros(64), torch.ones(64))
    start.load_into(model)
    weights, statistics = read_weights(tmp_path / "old"), {"feature_mean", "feature_std"}
    own = model.adapter_tensors()
    assert own.keys() - statistics == weights.keys() - statistics
    assert all(own[name].equal(weights[name]) for name in own.keys() - statistics)
    assert own["feature_std"].eq(1).all(), "the statistics are those of the run's own features"


@pytest.mark.parametrize("lora", [None, LORA | {"rank": 4}, LORA | {"targets": ["q_proj"]}])
def test_an_adapter_with_lora_is_refused_by_a_run_without_the_same(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    small_model(with_encoder=False, lora=LORA).save_pretrained(tmp_path / "old")
    with pytest.raises(
        ModelError, match=r'train.lora: is .* trained with {"alpha": 4.0, "rank": 2.* train.drop_lora to true'
    ):
        WarmStart.of(run(tmp_path, lora=lora))


@pytest.mark.parametrize("lora", [None, LORA | {"rank": 4}])
def test_proj_alone_of_an_adapter_with_lora_is_taken_where_that_is_asked_for(
    lora: dict[str, Any] | None, tmp_path: Path
) -> None:
    small_model(with_encoder=False, lora=LORA).save_pretrained(tmp_path / "old")
    start = WarmStart.of(run(tmp_path, lora=lora, drop_lora=True))
    assert start is not None
    model = small_model(with_encoder=False, seed=1, lora=lora)
    start.load_into(model)
    assert read_weights(tmp_path / "old")["proj.fc1.weight"].equal(model.proj.fc1.weight)
    assert all(not t.any() for name, t in model.lora_weights().items() if ".lora_B." in name)


def test_lora_that_only_the_run_has_changes_nothing_at_first(tmp_path: Path) -> None:
    small_model(with_encoder=False).save_pretrained(tmp_path / "old")
    start = WarmStart.of(run(tmp_path, lora=LORA))
    assert start is not None
    model = small_model(with_encoder=False, seed=1, lora=LORA)
    start.load_into(model)
    assert read_weights(tmp_path / "old")["proj.fc1.weight"].equal(model.proj.fc1.weight)
    assert all(not t.any() for name, t in model.lora_weights().items() if ".lora_B." in name)


def test_an_adapter_that_is_not_whole_is_refused_by_the_tensor(tmp_path: Path) -> None:
    small_model(with_encoder=False).save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "adapter.safetensors"
    whole = read_weights(tmp_path / "old")
    for kept, match in (
        ({}, "fc1.weight: is missing"),
        ({"proj.fc1.weight": torch.zeros(3, 3)}, "fc1.weight: has shape"),
    ):
        save_file({name: t for name, t in whole.items() if name != "proj.fc1.weight"} | kept, path)
        start = WarmStart.of(run(tmp_path))
        assert start is not None
        with pytest.raises(ModelError, match=match):
            start.load_into(small_model(with_encoder=False, seed=1))


@pytest.mark.parametrize("units", [79, 81])
def test_a_proj_of_another_size_is_refused(units: int, tmp_path: Path) -> None:
    small_model(with_encoder=False, projector_hidden_size=80).save_pretrained(tmp_path / "old")
    with pytest.raises(ModelError, match=f"model.projector_hidden_size: is {units} in this run, .* trained with 80"):
        WarmStart.of(run(tmp_path, projector_hidden_size=units))


def test_no_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"old.config\.json"):
        WarmStart.of(run(tmp_path))

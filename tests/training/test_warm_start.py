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


def run(root: Path, **model: Any) -> RunConfig:
    return RunConfig.from_dict(small_settings(root, train={"from_adapter": str(root / "old")}, model=model))


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


def test_a_wider_proj_maps_every_feature_as_the_adapter_did_and_its_new_units_learn(tmp_path: Path) -> None:
    old = small_model(with_encoder=False)
    old.save_pretrained(tmp_path / "old")
    start = WarmStart.of(run(tmp_path, projector_hidden_size=80))
    assert start is not None
    model = small_model(with_encoder=False, seed=1, projector_hidden_size=80)
    start.load_into(model)
    features = torch.randn(7, model.config.vision_embedding_size)
    mapped = model.proj(features)
    torch.testing.assert_close(mapped, old.proj(features))
    mapped.square().sum().backward()
    gradient = model.proj.fc2.weight.grad
    assert gradient is not None
    assert gradient[:, old.proj.fc1.out_features :].abs().amin(dim=0).gt(0).any()


def test_a_narrower_adapter_that_is_not_whole_is_refused_by_the_tensor(tmp_path: Path) -> None:
    small_model(with_encoder=False).save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "adapter.safetensors"
    whole = read_weights(tmp_path / "old")
    for kept, match in (
        ({}, "fc1.weight: is missing"),
        ({"proj.fc1.weight": torch.zeros(3, 3)}, "fc1.weight: has shape"),
    ):
        save_file({name: t for name, t in whole.items() if name != "proj.fc1.weight"} | kept, path)
        start = WarmStart.of(run(tmp_path, projector_hidden_size=80))
        assert start is not None
        with pytest.raises(ModelError, match=match):
            start.load_into(small_model(with_encoder=False, seed=1, projector_hidden_size=80))


def test_a_narrower_proj_is_refused(tmp_path: Path) -> None:
    small_model(with_encoder=False, projector_hidden_size=80).save_pretrained(tmp_path / "old")
    with pytest.raises(ModelError, match=r"model.projector_hidden_size: is 79 in this run, .* trained with 80"):
        WarmStart.of(run(tmp_path, projector_hidden_size=79))


def test_no_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"old.config\.json"):
        WarmStart.of(run(tmp_path))

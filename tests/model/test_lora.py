"""LoRA on the base model: what it adds, what it leaves as it was, what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.models import small_base, small_config, small_model
from support.training import collate, standalone_samples

from ocrmem.errors import ConfigError, ModelError
from ocrmem.model.configuration import InvalidModelConfig
from ocrmem.model.lora import without_lora
from ocrmem.model.modeling import MEMModel
from ocrmem.model.trainable import check_trainable
from ocrmem.training.frozen import hash_model

LORA = {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "down_proj"]}
LAYERS = [f"model.layers.{n}.{path}" for n in (0, 1) for path in ("self_attn.q_proj", "mlp.down_proj")]


def changed() -> MEMModel:
    """A model whose LoRA changes something."""
    model = small_model(with_encoder=False, lora=LORA)
    with torch.no_grad():
        for name, weight in model.lora_weights().items():
            if name.endswith("lora_B.weight"):
                weight.add_(1.0)
    return model


def loss(model: MEMModel) -> float:
    return model(**collate(standalone_samples())).loss.item()


def test_a_new_one_changes_nothing_and_stands_beside_the_proj_of_a_run_without_it() -> None:
    model, plain = small_model(with_encoder=False, lora=LORA), small_model(with_encoder=False)
    assert loss(model) == loss(plain)
    hashes, without = hash_model(model), hash_model(plain)
    assert (hashes.frozen, hashes.proj, without.lora) == (without.frozen, without.proj, {})
    names = {f"lora.{layer}.{kind}.weight" for layer in LAYERS for kind in ("lora_A", "lora_B")}
    assert set(hashes.lora) == set(model.lora_weights()) == names
    check_trainable(model)
    counts = {part.part: part.trainable for part in model.trainable_parameters()}
    assert counts["base"] == 0
    assert counts["lora"] == sum(weight.numel() for weight in model.lora_weights().values()) > 0


def test_it_is_float32_on_a_base_of_bfloat16_and_gets_a_gradient() -> None:
    model = MEMModel(small_config(lora=LORA), small_base().bfloat16())
    model(**collate(standalone_samples())).loss.backward()
    weights = model.lora_weights().values()
    assert {weight.dtype for weight in weights} == {weight.grad.dtype for weight in weights} == {torch.float32}


def test_switched_off_the_base_is_the_one_that_was_loaded() -> None:
    model, plain = changed(), small_model(with_encoder=False)
    with without_lora(model):
        assert loss(model) == loss(plain)
    assert loss(model) != loss(plain)
    check_trainable(model)


def test_an_adapter_carries_it_in_the_same_two_files(tmp_path: Path) -> None:
    model = changed()
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter.safetensors", "config.json"]
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["lora"] == LORA
    assert set(load_file(tmp_path / "adapter.safetensors")) >= set(model.lora_weights())
    assert loss(MEMModel.from_pretrained(tmp_path, base_llm_model=small_base())) == loss(model)
    small_model(with_encoder=False).save_pretrained(tmp_path)
    assert "lora" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))


def test_a_base_that_carries_one_is_not_taken_for_the_base_model() -> None:
    base = changed().base_llm_model
    for other in (small_config(), small_config(lora=LORA)):
        with pytest.raises(InvalidModelConfig, match=r"carries LoRA of another adapter.*Load it again"):
            MEMModel(other, base)


@pytest.mark.parametrize("targets", [["q_proj", "query"], ["lm_head"]])
def test_a_layer_that_is_not_there_is_named_with_those_that_are(targets: list[str]) -> None:
    there = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(
        ModelError, match=f"train.lora.targets: {targets[-1]}: .* no linear layers .*Use some of {there}"
    ):
        small_model(with_encoder=False, lora=LORA | {"targets": targets})


@pytest.mark.parametrize("value", [[], {"rank": 2}, LORA | {"rank": 0}, LORA | {"targets": []}, LORA | {"bias": 1}])
def test_a_config_json_that_describes_none_is_refused(value: Any) -> None:
    with pytest.raises(InvalidModelConfig, match=r"lora: is .*Give rank, alpha and a list of targets"):
        small_model(with_encoder=False, lora=value)


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    small_model(with_encoder=False)
    with pytest.raises(ConfigError, match=r"LoRA: needs the package peft.*ocrmem\[lora\]"):
        small_model(with_encoder=False, lora=LORA)

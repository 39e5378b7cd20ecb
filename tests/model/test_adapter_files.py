"""An adapter directory holds proj alone, comes back exactly, and refuses what it was not made for."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import VISION, small_base, small_config, small_encoder, small_model, small_settings

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, MissingInputError, ModelError
from ocrmem.model.compatibility import AdapterMismatch
from ocrmem.model.configuration import InvalidModelConfig
from ocrmem.model.fingerprint import fingerprint
from ocrmem.model.frozen_parts import load_base
from ocrmem.model.modeling import MEMModel


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """``models`` and ``other`` with a tiny base and encoder each, and an ``adapter`` for the first."""
    root = tmp_path_factory.mktemp("home")
    for name, seed in (("models", 0), ("other", 1)):
        small_base(seed=seed).save_pretrained(root / name / "base")
        small_encoder(seed=seed).save(root / name / "encoder")
    config = small_config(
        base_fingerprint=fingerprint(str(root / "models" / "base")),
        ocr_fingerprint=fingerprint(str(root / "models" / "encoder")),
    )
    torch.manual_seed(7)
    model = MEMModel(config, small_base())
    model.set_feature_statistics(torch.arange(VISION).float(), torch.ones(VISION))
    model.save_pretrained(root / "adapter")
    return root


@pytest.fixture
def adapter(home, tmp_path) -> Path:
    """A copy of the adapter that a test may spoil."""
    shutil.copytree(home / "adapter", tmp_path / "adapter")
    return tmp_path / "adapter"


def edit_config(adapter: Path, **changes) -> None:
    values = json.loads((adapter / "config.json").read_text(encoding="utf-8"))
    (adapter / "config.json").write_text(json.dumps(values | changes), encoding="utf-8")


def test_only_the_adapter_is_saved(home):
    assert sorted(p.name for p in (home / "adapter").iterdir()) == ["adapter.safetensors", "config.json"]
    names = set(load_file(home / "adapter" / "adapter.safetensors"))
    assert names == {
        *(f"proj.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")),
        "feature_mean",
        "feature_std",
    }


@pytest.mark.parametrize("with_encoder", [False, True])
def test_a_saved_adapter_comes_back_exactly(home, with_encoder):
    model = MEMModel.from_pretrained(home / "adapter", models=home / "models", with_encoder=with_encoder)
    saved = load_file(home / "adapter" / "adapter.safetensors")
    for name, tensor in model.adapter_tensors().items():
        assert torch.equal(tensor, saved[name])
    assert (model.ocr_embed is not None) == with_encoder
    assert torch.equal(model.base_llm_model.lm_head.weight, small_base().lm_head.weight)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        f"proj.{n}" for n, _ in model.proj.named_parameters()
    ]


def test_saving_again_gives_the_same_bytes(home, tmp_path):
    model = MEMModel.from_pretrained(home / "adapter", models=home / "models")
    model.save_pretrained(tmp_path)
    for name in ("adapter.safetensors", "config.json"):
        assert (tmp_path / name).read_bytes() == (home / "adapter" / name).read_bytes()


def test_saving_leaves_other_files_of_the_folder_alone(adapter):
    (adapter / "README.md").write_text("card", encoding="utf-8")
    small_model(with_encoder=False).save_pretrained(adapter)
    assert (adapter / "README.md").read_text(encoding="utf-8") == "card"


def test_a_gathered_state_dict_is_saved_without_its_frozen_parts(tmp_path):
    model = small_model()
    gathered = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=gathered, safe_serialization=True)
    saved = load_file(tmp_path / "adapter.safetensors")
    assert set(saved) == {f"proj.{name}" for name in model.proj.state_dict()}
    assert torch.equal(saved["proj.fc1.bias"], model.proj.fc1.bias + 1)


def test_a_kill_while_writing_leaves_the_old_file(adapter, monkeypatch):
    before = (adapter / "adapter.safetensors").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        small_model(with_encoder=False).save_pretrained(adapter)
    assert (adapter / "adapter.safetensors").read_bytes() == before
    assert sorted(p.name for p in adapter.iterdir()) == ["adapter.safetensors", "config.json"]


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (lambda a: (a / "config.json").unlink(), MissingInputError, "config.json: is not there"),
        (
            lambda a: (a / "adapter.safetensors").unlink(),
            MissingInputError,
            "adapter.safetensors: is not there",
        ),
        (lambda a: (a / "config.json").write_text("{"), ModelError, "not valid JSON"),
        (lambda a: (a / "config.json").write_bytes(b"\xff\xfe"), ModelError, "not valid JSON"),
        (lambda a: (a / "config.json").write_text("[]"), ModelError, "model_type is 'list'"),
        (lambda a: edit_config(a, model_type="qwen3"), ModelError, "model_type is 'qwen3'"),
        (
            lambda a: (a / "adapter.safetensors").write_bytes(b"\x80\x04."),
            ModelError,
            "not a whole safetensors",
        ),
        (
            lambda a: (a / "adapter.safetensors").write_bytes((a / "adapter.safetensors").read_bytes()[:-9]),
            ModelError,
            "not a whole safetensors",
        ),
        (lambda a: edit_config(a, base_model_name=""), InvalidModelConfig, "base_model_name"),
        (lambda a: edit_config(a, context_threshold=512), InvalidModelConfig, "context_threshold"),
        (
            lambda a: edit_config(a, hidden_size=48),
            InvalidModelConfig,
            "hidden_size: is 48, but the language model's is 32",
        ),
        (
            lambda a: edit_config(a, projector_hidden_size=12),
            AdapterMismatch,
            r"proj.fc1.weight: has shape \(32, 64\), but config.json asks for \(12, 64\)",
        ),
        (lambda a: edit_config(a, projector_norm=True), AdapterMismatch, "proj.norm.weight: is missing"),
    ],
)
def test_a_spoilt_adapter_is_refused_by_name(home, adapter, spoil, error, match):
    spoil(adapter)
    with pytest.raises(error, match=match):
        MEMModel.from_pretrained(adapter, models=home / "models")


@pytest.mark.parametrize(
    ("name", "tensor", "match"),
    [
        ("proj.fc3.weight", torch.zeros(2), "describes no such tensor"),
        ("proj.fc2.bias", torch.full((32,), torch.nan), "not finite"),
        ("feature_mean", torch.zeros(3), r"asks for \(64,\)"),
    ],
)
def test_tensors_that_do_not_belong_are_refused_by_name(home, adapter, name, tensor, match):
    path = adapter / "adapter.safetensors"
    save_file(load_file(path) | {name: tensor}, path)
    with pytest.raises(AdapterMismatch, match=match) as caught:
        MEMModel.from_pretrained(adapter, models=home / "models")
    assert name in caught.value.problems[0].place


def test_another_tiny_base_is_refused_though_its_name_is_the_same(home):
    with pytest.raises(AdapterMismatch, match="base_fingerprint"):
        MEMModel.from_pretrained(home / "adapter", models=home / "other")


def test_another_tiny_encoder_is_refused_though_its_name_is_the_same(home, tmp_path):
    shutil.copytree(home / "models" / "base", tmp_path / "base")
    shutil.copytree(home / "other" / "encoder", tmp_path / "encoder")
    MEMModel.from_pretrained(home / "adapter", models=tmp_path)
    with pytest.raises(AdapterMismatch, match="ocr_fingerprint"):
        MEMModel.from_pretrained(home / "adapter", models=tmp_path, with_encoder=True)


def test_parts_that_are_loaded_already_are_checked_too(home):
    right = load_base(str(home / "models" / "base"))
    model = MEMModel.from_pretrained(home / "adapter", base_llm_model=right, ocr_embed=small_encoder())
    assert model.base_llm_model is right
    with pytest.raises(AdapterMismatch, match="base_fingerprint"):
        MEMModel.from_pretrained(home / "adapter", base_llm_model=load_base(str(home / "other" / "base")))
    with pytest.raises(InvalidModelConfig, match="hidden_size"):
        MEMModel.from_pretrained(home / "adapter", base_llm_model=small_base(hidden_size=64))
    with pytest.raises(InvalidModelConfig, match="vision_embedding_size: is 64, but the encoder gives 128"):
        MEMModel.from_pretrained(home / "adapter", base_llm_model=right, ocr_embed=small_encoder("concat"))


def test_without_fingerprints_the_name_decides(home, adapter):
    edit_config(adapter, base_model_name="Qwen/Qwen3-8B", base_fingerprint=None)
    with pytest.raises(AdapterMismatch, match="base_model_name: is 'Qwen/Qwen3-8B' in the adapter"):
        MEMModel.from_pretrained(adapter, base_llm_model=load_base(str(home / "models" / "base")))
    MEMModel.from_pretrained(adapter, base_llm_model=small_base())


def test_a_base_that_moved_is_still_the_same(home, adapter, tmp_path):
    shutil.copytree(home / "models" / "base", tmp_path / "elsewhere")
    edit_config(adapter, base_model_name="Qwen/Qwen3-8B")
    MEMModel.from_pretrained(adapter, base_llm_model=load_base(str(tmp_path / "elsewhere")))


def test_a_missing_base_names_the_verb_to_run(home, tmp_path):
    with pytest.raises(MissingInputError, match="Run `ocrmem base` first"):
        MEMModel.from_pretrained(home / "adapter", models=tmp_path)


@pytest.mark.parametrize("name", ["nobody/such-model", "/no/such/directory"])
def test_a_named_base_that_does_not_load_is_named(home, adapter, name):
    edit_config(adapter, base_model_name=name, base_fingerprint=None)
    with pytest.raises(ModelError, match=f"{name}: no causal language model loads from here"):
        MEMModel.from_pretrained(adapter)


@pytest.mark.parametrize(
    ("section", "field", "value", "other"),
    [
        ("model", "base_model_name", "Qwen/Qwen3-8B", "tiny"),
        ("model", "base_revision", "abc", "def"),
        ("model", "projector_norm", True, False),
        ("model", "projector_hidden_size", 12, None),
    ],
)
def test_a_run_with_other_settings_is_refused_with_both_values(home, adapter, section, field, value, other):
    run = RunConfig.from_dict(small_settings(home))
    edit_config(adapter, **{field: other})
    run = run.model_copy(update={section: getattr(run, section).model_copy(update={field: value})})
    with pytest.raises(AdapterMismatch, match=f"{section}.{field}: is {value!r} in this run") as caught:
        MEMModel.from_pretrained(adapter, run_config=run)
    assert repr(other) in str(caught.value)


def test_a_revision_that_one_side_leaves_open_is_no_difference(home, adapter):
    edit_config(adapter, base_revision="abc")
    run = RunConfig.from_dict(small_settings(home))
    assert MEMModel.from_pretrained(adapter, run_config=run).config.base_revision == "abc"


def test_feature_statistics_tell_drift(home):
    model = MEMModel.from_pretrained(home / "adapter", models=home / "models")
    same = torch.arange(VISION).float().repeat(5, 1)
    assert model.feature_drift(same) == {"shift": 0}
    assert model.feature_drift(same + 3) == {"shift": pytest.approx(3)}
    assert small_model(with_encoder=False).feature_drift(same) is None


def test_the_fingerprint_follows_the_weights_and_not_their_place_or_shards(home, tmp_path):
    found = fingerprint(str(home / "models" / "base"))
    assert found != fingerprint(str(home / "other" / "base"))
    tensors = load_file(home / "models" / "base" / "model.safetensors")
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, tmp_path / f"model-{number}.safetensors")
    assert fingerprint(str(tmp_path)) == found
    changed = tensors[names[-1]].clone()
    changed.view(-1)[0] += 1e-6
    save_file(tensors | {names[-1]: changed}, tmp_path / "model-0.safetensors")
    (tmp_path / "model-1.safetensors").unlink()
    assert fingerprint(str(tmp_path)) != found


def test_a_hub_model_in_the_cache_has_the_fingerprint_of_its_files(home, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--someone--chat" / "snapshots" / "0123abc"
    shutil.copytree(home / "models" / "base", snapshot)
    (tmp_path / "models--someone--chat" / "refs").mkdir()
    (tmp_path / "models--someone--chat" / "refs" / "main").write_text("0123abc", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    expected = fingerprint(str(home / "models" / "base"))
    assert fingerprint("someone/chat") == expected
    assert fingerprint("someone/chat", "0123abc") == expected
    assert fingerprint("someone/chat", "another") is None


def test_a_model_built_from_its_configuration_alone_loads_its_base(home, monkeypatch):
    monkeypatch.chdir(home)
    model = MEMModel(small_config())
    assert torch.equal(model.base_llm_model.lm_head.weight, small_base().lm_head.weight)
    assert model.get_input_embeddings() is model.base_llm_model.get_input_embeddings()


def test_no_weights_no_fingerprint(tmp_path):
    assert fingerprint(str(tmp_path)) is None
    assert fingerprint("nobody/such-model") is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        fingerprint(str(tmp_path))


def test_odd_fields_are_config_errors_and_value_errors():
    assert issubclass(InvalidModelConfig, ConfigError)
    assert issubclass(InvalidModelConfig, ValueError)
    assert issubclass(AdapterMismatch, ModelError)


def test_base_goes_straight_to_the_device_that_is_named(tmp_path: Path) -> None:
    # No GPU is needed to see that the weights are placed while they are read: meta is a device as well.
    small_base().save_pretrained(tmp_path)
    base = load_base(str(tmp_path), device=torch.device("meta"))
    assert {parameter.device.type for parameter in base.parameters()} == {"meta"}
    assert {p.device.type for p in load_base(str(tmp_path), device=torch.device("cpu")).parameters()} == {"cpu"}

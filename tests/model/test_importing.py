"""The ancestor's adapter files become ours; nothing in them is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.models import HIDDEN, PLACEHOLDER, VISION, small_base, small_encoder
from support.ocr_mem import NAMES, old_proj, write_config, write_weights
from torch import nn

from ocrmem.errors import ConfigError, MissingInputError, ModelError
from ocrmem.model.compatibility import AdapterMismatch
from ocrmem.model.configuration import InvalidModelConfig
from ocrmem.model.importing import import_adapter
from ocrmem.model.modeling import MEMModel

SETTINGS = {
    "architectures": ["MEMModel"],
    "base_model_name": "Qwen/Qwen3-8B",
    "context_threshold": 2048,
    "model_type": "ocr_mem",
    "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "vision_embedding_size": 512,
}


def ancestor(width=512, hidden=HIDDEN, inner=None, *, norm=False) -> nn.Sequential:
    torch.manual_seed(0)
    inner = inner or hidden
    head = [nn.LayerNorm(width)] if norm else []
    return nn.Sequential(*head, nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, hidden))


def write(directory: Path, weights: object, settings: dict | None = None) -> Path:
    directory.mkdir(exist_ok=True)
    torch.save(weights, directory / "projection_layer.pt")
    (directory / "config.json").write_text(json.dumps(SETTINGS | (settings or {})), encoding="utf-8")
    return directory


FITTING = {"base_model_name": "mine", "ocr_model_name": "mine", "context_threshold": 8}


@pytest.mark.parametrize("prefix", ["", "module.", "proj.", "module.proj.", "projection_layer."])
@pytest.mark.parametrize("shape", [{}, {"inner": 12}, {"norm": True}])
def test_an_imported_projector_computes_what_the_ancestor_s_did(tmp_path, prefix, shape):
    old = ancestor(VISION, **shape)
    weights = {prefix + name: tensor for name, tensor in old.state_dict().items()}
    source = write(tmp_path / "old", weights, FITTING)
    import_adapter(source, tmp_path / "new", {"placeholder_token_id": PLACEHOLDER})
    model = MEMModel.from_pretrained(tmp_path / "new", base_llm_model=small_base())
    features = torch.randn(5, VISION)
    torch.testing.assert_close(model.proj(features), old(features))


@pytest.mark.parametrize("wrapped", ["state_dict", "proj"])
def test_a_state_dict_in_a_wrapper_is_found(tmp_path, wrapped):
    source = write(tmp_path / "old", {wrapped: ancestor(VISION).state_dict()}, FITTING)
    assert import_adapter(source, tmp_path / "new")["vision_embedding_size"] == VISION


def test_half_precision_weights_become_float32(tmp_path):
    source = write(tmp_path / "old", ancestor(VISION).to(torch.bfloat16).state_dict(), FITTING)
    import_adapter(source, tmp_path / "new", {"placeholder_token_id": PLACEHOLDER})
    model = MEMModel.from_pretrained(tmp_path / "new", base_llm_model=small_base())
    assert model.proj.fc1.weight.dtype == torch.float32


def test_the_ancestor_s_own_adapter_is_imported_and_every_fault_of_it_reported(tmp_path):
    result = import_adapter(write(tmp_path / "old", ancestor().state_dict()), tmp_path / "new")
    assert {p["place"] for p in result["problems"]} == {"context_threshold", "vision_embedding_size"}
    summary = "\n".join(result["summary"])
    assert "vision_embedding_size: is 512, but deepseek-ai/DeepSeek-OCR gives 1024" in summary
    assert "no history could ever become memory" in summary
    assert result["left_out"] == ["architectures", "model_type", "torch_dtype", "transformers_version"]
    written = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    assert (written["vision_embedding_size"], written["hidden_size"]) == (512, HIDDEN)
    with pytest.raises(InvalidModelConfig, match="deepseek-ai/DeepSeek-OCR gives 1024"):
        MEMModel.from_pretrained(tmp_path / "new", base_llm_model=small_base())


def test_a_projector_of_another_width_is_refused_beside_an_encoder(tmp_path):
    source = write(tmp_path / "old", ancestor(512).state_dict(), FITTING)
    import_adapter(source, tmp_path / "new", {"placeholder_token_id": PLACEHOLDER, "token_size": 32})
    MEMModel.from_pretrained(tmp_path / "new", base_llm_model=small_base())
    with pytest.raises(InvalidModelConfig, match="vision_embedding_size: is 512, but the encoder gives 64"):
        MEMModel.from_pretrained(tmp_path / "new", base_llm_model=small_base(), ocr_embed=small_encoder())


def test_the_weights_width_wins_over_the_settings_and_is_reported(tmp_path):
    source = write(tmp_path / "old", ancestor(VISION).state_dict(), FITTING | {"vision_embedding_size": 1024})
    result = import_adapter(source, tmp_path / "new")
    assert result["vision_embedding_size"] == VISION
    assert any("config.json said vision_embedding_size 1024" in line for line in result["summary"])


def test_overrides_cure_the_settings_but_not_the_weights(tmp_path):
    source = write(tmp_path / "old", ancestor(1024).state_dict())
    result = import_adapter(source, tmp_path / "new", {"context_threshold": 512, "vision_embedding_size": 7})
    assert result["problems"] == []
    assert result["vision_embedding_size"] == 1024
    with pytest.raises(ConfigError, match="context_treshold"):
        import_adapter(source, tmp_path / "new", {"context_treshold": 512})


def test_a_base_of_another_size_is_refused(tmp_path):
    source = write(tmp_path / "old", ancestor(VISION, 48).state_dict(), FITTING)
    import_adapter(source, tmp_path / "new", {"placeholder_token_id": PLACEHOLDER})
    with pytest.raises((AdapterMismatch, InvalidModelConfig), match="hidden_size: is 48"):
        MEMModel.from_pretrained(tmp_path / "new", base_llm_model=small_base())


@pytest.mark.parametrize("width", [512, 1024])
@pytest.mark.parametrize("name_of_base", ["base_model_name", "base_llm_model_name", None])
def test_what_ocr_mem_wrote_at_any_time_is_read(tmp_path, name_of_base, width):
    old = old_proj(width, HIDDEN)
    write_weights(tmp_path / "checkpoint-200", old)
    overrides = ["context_threshold=1024"]
    if name_of_base:
        write_config(tmp_path / "checkpoint-200", name_of_base, width=width)
    else:
        with pytest.raises(MissingInputError, match=r"--set base_model_name=\S+ --set ocr_model_name=") as refused:
            import_adapter(tmp_path / "checkpoint-200", tmp_path / "new", overrides)
        overrides += refused.value.problems[0].remedy.removeprefix("Add --set ").partition(",")[0].split(" --set ")
    result = import_adapter(tmp_path / "checkpoint-200", tmp_path / "new", overrides)
    assert (result["vision_embedding_size"], result["projector_hidden_size"]) == (width, width)
    written = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    assert {name: written[name] for name in NAMES} == NAMES
    assert [p["place"] for p in result["problems"]] == ([] if width == 1024 else ["vision_embedding_size"])
    assert "Verdana" in result["warnings"][0]


def test_of_a_training_s_output_the_last_weights_are_taken(tmp_path):
    for name in ("checkpoint-200", "checkpoint-1000"):
        write_weights(tmp_path / name, old_proj(VISION, HIDDEN))
        write_config(tmp_path / name, width=VISION)
    assert "checkpoint-1000" in import_adapter(tmp_path, tmp_path / "new")["weights"]
    write_weights(tmp_path / "final_adapter", old_proj(VISION, HIDDEN))
    write_config(tmp_path / "final_adapter", width=VISION)
    assert "final_adapter" in import_adapter(tmp_path, tmp_path / "new")["weights"]


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("sharded", [False, True])
def test_of_a_whole_model_s_weights_only_proj_is_read(tmp_path, form, sharded):
    def save(tensors: dict[str, torch.Tensor], name: str) -> None:
        save_file(tensors, tmp_path / name) if name.endswith("safetensors") else torch.save(tensors, tmp_path / name)

    old = old_proj(VISION, HIDDEN)
    proj = {f"proj.{name}": tensor for name, tensor in old.state_dict().items()}
    others = {"base_llm_model.model.layers.0.mlp.up_proj.weight": torch.zeros(2, 2), "ocr_embed.proj.0": torch.ones(1)}
    if sharded:
        stem, _, ending = form.rpartition(".")
        shards = {f"{stem}-0000{number}-of-00002.{ending}": held for number, held in ((1, proj), (2, others))}
        save(proj, next(iter(shards)))  # the other one is not even there
        index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
        (tmp_path / f"{form}.index.json").write_text(json.dumps(index), encoding="utf-8")
    else:
        save(proj | others, form)
    write_config(tmp_path, width=VISION)
    result = import_adapter(tmp_path, tmp_path / "new")
    assert result["parameters"] == sum(parameter.numel() for parameter in old.parameters())


class Bomb:
    """Pickles into a call that leaves a trace."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("how", ["torch", "pickle", "bin"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, how):
    trace = tmp_path / "trace"
    source = write(tmp_path / "old", {"0.weight": Bomb(trace)})
    if how == "bin":
        (source / "projection_layer.pt").rename(source / "pytorch_model.bin")
    if how == "pickle":
        (source / "projection_layer.pt").write_bytes(pickle.dumps({"0.weight": Bomb(trace)}))
    with pytest.raises(ModelError, match="is not a file of plain tensors"):
        import_adapter(source, tmp_path / "new")
    assert not trace.exists()
    assert not (tmp_path / "new").exists()
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists(), "the test's own bomb does not go off"


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (nn.Linear(4, 4).state_dict(), "not a projector of two linear layers"),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)).state_dict(), "not a projector"),
        (nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4)).state_dict(), "not a projector"),
        (
            nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(4, 4)).state_dict(),
            "fc2.weight has shape",
        ),
        ({"0.weight": torch.zeros(2, 2), "note": "hello"}, "something other than a state dict"),
        ([torch.zeros(2)], "something other than a state dict"),
        ({}, "it holds nothing"),
        ({name: t * torch.nan for name, t in ancestor(4, 4).state_dict().items()}, "not finite"),
    ],
)
def test_weights_of_something_else_are_refused(tmp_path, weights, match):
    with pytest.raises(ModelError, match=match):
        import_adapter(write(tmp_path / "old", weights), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x04.", b"hello", b"\x80\x02}q\x00(X"])
def test_a_broken_file_is_a_typed_error(tmp_path, content):
    source = write(tmp_path / "old", {})
    (source / "projection_layer.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"projection_layer\.pt"):
        import_adapter(source, tmp_path / "new")


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_broken_config_is_a_typed_error(tmp_path, content):
    source = write(tmp_path / "old", ancestor().state_dict())
    (source / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        import_adapter(source, tmp_path / "new")


@pytest.mark.parametrize("text", ["context_threshold", "=3", "labels=["])
def test_an_override_that_cannot_be_read_is_named(tmp_path, text):
    source = write(tmp_path / "old", ancestor().state_dict())
    with pytest.raises(ConfigError, match="--set"):
        import_adapter(source, tmp_path / "new", [text])


@pytest.mark.parametrize("name", ["projection_layer.pt", "config.json"])
def test_a_missing_file_is_named(tmp_path, name):
    source = write(tmp_path / "old", ancestor().state_dict())
    (source / name).unlink()
    with pytest.raises(MissingInputError, match=name):
        import_adapter(source, tmp_path / "new")


def test_odd_settings_are_imported_and_listed(tmp_path):
    settings = {"context_threshold": "many", "base_model_name": None, "features": 3}
    result = import_adapter(write(tmp_path / "old", ancestor().state_dict(), settings), tmp_path / "new")
    assert {p["place"] for p in result["problems"]} >= {"context_threshold", "base_model_name", "features"}

"""Parameters without weights: against models built otherwise, published figures and sums done by hand."""

from __future__ import annotations

import pytest
import torch
from support.models import small_base, small_encoder, small_settings
from transformers import Qwen3Config, Qwen3ForCausalLM

from ocrmem.config import RunConfig
from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.errors import ModelError
from ocrmem.model.projector import Projector
from ocrmem.model.tiny.encoder import random_tiny_encoder
from ocrmem.model.tiny.language_model import tiny_language_model_config
from ocrmem.planning.shapes import Parameters, base_config, count, shape_of

PRESETS = {
    "params.yaml": tiny_language_model_config,
    "configs/qwen3-8b-8gpu.yaml": lambda: Qwen3Config(
        hidden_size=4096,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=12288,
        vocab_size=151936,
        tie_word_embeddings=False,
    ),
    "configs/qwen3-0.6b-1gpu.yaml": lambda: Qwen3Config(
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        vocab_size=151936,
        tie_word_embeddings=True,
    ),
}
PRESETS["configs/qwen3-8b-4gpu-24gb.yaml"] = PRESETS["configs/qwen3-8b-8gpu.yaml"]


def counted(path: str, *overrides: str) -> Parameters:
    config = RunConfig.load(path, overrides)
    return count(config, base_config(config))


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_bytes_are_those_of_the_model(preset):
    model = RunConfig.load(preset).model
    with torch.device("meta"):
        base = Qwen3ForCausalLM(PRESETS[preset]()).to(getattr(torch, model.precision))
        proj = Projector(
            model.vision_embedding_size,
            base.config.hidden_size,
            inner_size=model.projector_hidden_size,
            norm=model.projector_norm,
        )
        encoder = (
            random_tiny_encoder(0) if preset == "params.yaml" else DeepEncoder(deepseek_ocr_config(), model.features)
        )
    found = counted(preset)
    assert found.base == sum(p.numel() for p in base.parameters())
    assert found.base_bytes == sum(p.numel() * p.element_size() for p in base.parameters())
    assert found.trained == sum(p.numel() for p in proj.parameters())
    assert found.trained_bytes == sum(p.numel() * p.element_size() for p in proj.parameters())
    assert found.encoder == sum(p.numel() for p in encoder.parameters())


def test_the_ancestors_figures_come_out():
    as_it_was = ("model.features=sum", "model.vision_embedding_size=1024", "model.projector_norm=false")
    found = counted("configs/qwen3-8b-8gpu.yaml", *as_it_was)
    assert (found.base, found.base_bytes) == (8_190_735_360, 16_381_470_720)
    assert found.trained == 1024 * 4096 + 4096 + 4096 * 4096 + 4096 == 20_979_712
    assert found.encoder == 397_880_576
    # It printed "trainable params: 18,882,560 || all params: 8,607,498,496" with tokens 512 wide.
    narrow = found.trained - 512 * 4096
    assert (narrow, found.base + found.encoder + narrow) == (18_882_560, 8_607_498_496)


# Billions of parameters, all and without embeddings, as Qwen's model cards give them.
@pytest.mark.parametrize(
    ("size", "billions", "without_embeddings"),
    [
        ("0.6B", 0.6, 0.44),
        ("1.7B", 1.7, 1.4),
        ("4B", 4.0, 3.6),
        ("8B", 8.2, 6.95),
        ("14B", 14.8, 13.2),
        ("32B", 32.8, 31.2),
        ("4B-Instruct-2507", 4.0, 3.6),
        ("8B-Base", 8.2, 6.95),
    ],
)
def test_the_known_family_has_its_published_sizes(size, billions, without_embeddings):
    name = f"model.base_model_name=Qwen/Qwen3-{size}"
    config = RunConfig.load("configs/qwen3-8b-8gpu.yaml", [name, "model.base_revision=null"])
    shape = base_config(config)
    found = count(config, shape)
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    assert found.base / 1e9 == pytest.approx(billions, abs=0.05)
    assert (found.base - embeddings) / 1e9 == pytest.approx(without_embeddings, abs=0.05)


def test_a_directory_tells_its_own_shapes_without_weights(tmp_path):
    base = small_base()
    base.config.save_pretrained(tmp_path / "base")
    small_encoder().save(tmp_path / "encoder")
    settings = small_settings(tmp_path)
    names = {"base_model_name": str(tmp_path / "base"), "ocr_model_name": str(tmp_path / "encoder")}
    config = RunConfig.from_dict(settings | {"model": settings["model"] | names})
    found = count(config, base_config(config))
    assert found.base == sum(p.numel() for p in base.parameters())
    assert found.encoder == sum(p.numel() for p in small_encoder().parameters())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "its config.json describes no language model"),
        (
            '{"model_type": "gemma", "hidden_size": 8, "num_attention_heads": 1}',
            "is a gemma, whose arithmetic the plan does not know",
        ),
    ],
)
def test_a_directory_of_something_else_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    config = RunConfig.load("configs/qwen3-8b-8gpu.yaml", [f"model.base_model_name={tmp_path}"])
    with pytest.raises(ModelError, match=message):
        base_config(config)


def test_an_unknown_name_asks_for_a_config_json():
    config = RunConfig.load("configs/qwen3-8b-8gpu.yaml", ["model.base_model_name=someone/qwen3-tuned"])
    with pytest.raises(ModelError, match=r"'someone/qwen3-tuned' are not known here.*local directory"):
        base_config(config)


def test_a_layers_weights_are_its_linear_layers():
    base = small_base(72, hidden_size=48, num_attention_heads=4, num_key_value_heads=2, intermediate_size=112)
    matrices = [p for p in base.model.layers[0].parameters() if p.ndim == 2]
    assert shape_of(base.config).layer_weights == sum(p.numel() for p in matrices)

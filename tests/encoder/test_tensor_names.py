from __future__ import annotations

import pytest
import torch
from support.deepseek_reference import ReferenceModel
from transformers import UnlimitedOcrVisionModel

from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.tensor_names import Source, native_sources, original_name


@pytest.fixture(scope="module")
def published_keys() -> list[str]:
    with torch.device("meta"):
        reference = ReferenceModel(deepseek_ocr_config())
    return [f"model.{name}" for name in reference.state_dict()]


@pytest.fixture(scope="module")
def native_names() -> list[str]:
    with torch.device("meta"):
        return list(UnlimitedOcrVisionModel(deepseek_ocr_config()).state_dict())


def test_the_published_keys_are_as_many_as_in_the_published_file(published_keys: list[str]) -> None:
    assert sum(key.startswith("model.sam_model.") for key in published_keys) == 179
    assert sum(key.startswith("model.vision_model.") for key in published_keys) == 293


def test_published_keys_give_every_native_tensor_and_no_other(
    published_keys: list[str], native_names: list[str]
) -> None:
    assert sorted(native_sources(published_keys)) == sorted(native_names)


def test_every_published_key_but_the_unused_patch_embedding_is_used(published_keys: list[str]) -> None:
    used = {source.key for source in native_sources(published_keys).values()}
    assert set(published_keys) - used == {"model.vision_model.embeddings.patch_embedding.weight"}


def test_original_names_lead_back_to_their_native_tensor(native_names: list[str]) -> None:
    for native in native_names:
        key, part = original_name(native)
        assert native_sources([key])[native] == Source(key, part)


@pytest.mark.parametrize(
    ("key", "native"),
    [
        ("model.sam_model.blocks.3.norm2.bias", "sam_encoder.layers.3.layer_norm2.bias"),
        ("sam_model.neck.3.weight", "sam_encoder.neck.layer_norm2.weight"),
        ("model.sam_model.net_3.weight", "sam_encoder.proj.conv2.weight"),
        ("model.sam_model.blocks.0.attn.proj.weight", "sam_encoder.layers.0.attn.proj.weight"),
        ("model.vision_tower.sam_encoder.pos_embed", "sam_encoder.pos_embed"),
        ("vision_encoder.pre_layrnorm.bias", "vision_encoder.pre_layrnorm.bias"),
    ],
)
def test_names_with_and_without_the_prefixes_of_a_whole_model(key: str, native: str) -> None:
    assert native_sources([key]) == {native: Source(key)}


def test_query_key_and_value_are_thirds_of_one_tensor_in_that_order() -> None:
    key = "model.vision_model.transformer.layers.7.self_attn.qkv_proj.bias"
    stem = "vision_encoder.encoder.layers.7.self_attn."
    assert native_sources([key]) == {
        f"{stem}q_proj.bias": Source(key, 0),
        f"{stem}k_proj.bias": Source(key, 1),
        f"{stem}v_proj.bias": Source(key, 2),
    }


@pytest.mark.parametrize(
    "key",
    [
        "lm_head.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.projector.layers.weight",
        "model.image_newline",
        "model.vision_model.embeddings.position_ids",
        "vision_encoder.embeddings.position_ids",
        "model.vision_model.post_layernorm.weight",
        "model.some_vision_model.weight",
    ],
)
def test_keys_of_no_use_to_the_encoder_are_left_out(key: str) -> None:
    assert native_sources([key]) == {}

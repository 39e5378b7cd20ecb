"""The wrapper around the real package deepseek-ocr-encoder. Its sizes are fixed at 1024, so CLIP is short."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from PIL import Image
from support.deepseek_reference import ReferenceModel, randomise
from support.encoders import publish_as_deepseek, random_pages, small_config
from support.page_dataset import written_page
from torch import nn

from ocrmem.config import RenderSection
from ocrmem.encoder.comparison import TOLERANCES
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.encoder.wrapped_encoder import WrappedEncoder
from ocrmem.errors import ModelError
from ocrmem.rendering import load_atlas, render_text

deepseek_ocr_encoder = pytest.importorskip("deepseek_ocr_encoder")


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    return randomise(ReferenceModel(small_config(1024)))


@pytest.fixture
def package_object(reference: ReferenceModel) -> nn.Module:
    # The package takes the model apart, so each test gives it a copy.
    return deepseek_ocr_encoder.DeepSeekOCREncoder(
        copy.deepcopy(reference), device="cpu", dtype=torch.float32, freeze=False
    )


@pytest.fixture(scope="module")
def native(reference: ReferenceModel, tmp_path_factory: pytest.TempPathFactory) -> DeepEncoder:
    directory = tmp_path_factory.mktemp("published")
    return DeepEncoder.from_pretrained(publish_as_deepseek(directory, reference, small_config(1024)))


# 512 px give 16 x 16 tokens, for which the package computes positions ahead.
@pytest.mark.parametrize("size", [128, 256, 320, 512])
def test_package_wrapper_and_native_modules_give_the_same_features(
    package_object: nn.Module, native: DeepEncoder, size: int
) -> None:
    pages = random_pages(2, size)
    from_package = package_object._forward_core(pages)
    wrapped = WrappedEncoder(package_object)(pages)
    assert wrapped.shape == (2, (size // 32) ** 2, 1024)
    assert (wrapped - from_package).abs().max() < 1e-5
    assert (native(pages) - from_package).abs().max() < 1e-4


def test_a_projector_trains_on_wrapped_features_but_not_on_the_packages(package_object: nn.Module) -> None:
    pages = random_pages(1, 256)
    leaked = package_object._forward_core(pages)
    projector = nn.Linear(1024, 4)
    assert leaked.is_inference()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        projector(leaked)
    features = WrappedEncoder(package_object)(pages)
    assert not features.is_inference()
    projector(features).square().mean().backward()
    assert projector.weight.grad.abs().max() > 0


def test_an_object_that_was_used_under_inference_mode_leaks_nothing(package_object: nn.Module) -> None:
    pages = random_pages(1, 256)
    package_object._forward_core(pages)  # fills the package's position cache with inference tensors
    with torch.inference_mode():
        made_there = deepseek_ocr_encoder.DeepSeekOCREncoder(
            ReferenceModel(small_config(1024)), device="cpu", dtype=torch.float32
        )
    for inner in (package_object, made_there):
        features = WrappedEncoder(inner)(pages)
        nn.Linear(1024, 4)(features).sum().backward()


def test_a_wrapped_encoder_is_frozen_and_counts_as_the_native_one(
    package_object: nn.Module, native: DeepEncoder
) -> None:
    wrapped = WrappedEncoder(package_object)
    assert not any(p.requires_grad for p in wrapped.parameters())
    assert sum(p.numel() for p in wrapped.parameters()) == sum(p.numel() for p in native.parameters())
    assert (wrapped.feature_size, wrapped.token_size, wrapped.features) == (1024, 32, "sum")
    assert wrapped.tokens_for(256) == native.tokens_for(256) == 64
    assert (wrapped.dtype, wrapped.device) == (torch.float32, torch.device("cpu"))
    assert len(wrapped.weights_sha256()) == 64


# A second writing of the encoder, so rounding differs: in bfloat16 either is as far from its own float32 features.
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_package_around_a_callers_model_gives_the_native_features(
    reference: ReferenceModel, native: DeepEncoder, dtype: torch.dtype
) -> None:
    pages = [written_page(seed) for seed in range(2)]
    package = WrappedEncoder.of_model(copy.deepcopy(reference), dtype=dtype, device=torch.device("cpu"))
    found, expected = (encode_pages(encoder, pages).float() for encoder in (package, copy.deepcopy(native).to(dtype)))
    assert not found.is_inference()
    assert (found - expected).abs().max() < TOLERANCES[dtype] * expected.square().mean().sqrt()


def test_a_page_of_the_packages_own_size_is_prepared_as_its_encode_prepares_a_picture(
    package_object: nn.Module, native: DeepEncoder
) -> None:
    page = render_text("as a file would be read", RenderSection(), load_atlas("unifont")).pages[0]
    own = WrappedEncoder(package_object)
    with Image.open(io.BytesIO(page.png())) as picture:
        assert torch.equal(own.packed([page])[0], package_object._preproc_1024(picture.convert("RGB")))
    expected = native.pixels(native.packed([page]))
    assert not torch.equal(own.packed([page]), expected)  # an object of the caller's keeps CLIP's means
    same = WrappedEncoder.of_native(copy.deepcopy(native))
    assert torch.equal(same.pixels(same.packed([page])), expected)


def test_positions_that_were_computed_follow_the_weights(package_object: nn.Module) -> None:
    pages = random_pages(1, 256)
    wrapped = WrappedEncoder(package_object)
    wrapped(pages)
    assert wrapped.double()(pages.double()).dtype == torch.float64


def test_the_packages_own_dtype_is_kept(reference: ReferenceModel) -> None:
    inner = deepseek_ocr_encoder.DeepSeekOCREncoder(copy.deepcopy(reference), device="cpu")
    assert WrappedEncoder(inner)(random_pages(1, 128)).dtype == torch.bfloat16


@pytest.mark.parametrize("inner", [nn.Linear(2, 2), object(), None])
def test_anything_else_is_refused_with_what_it_lacks(inner: object) -> None:
    with pytest.raises(ModelError, match="has no sam, clip_pre, clip_tr"):
        WrappedEncoder(inner)


def test_pixels_of_another_shape_are_refused(package_object: nn.Module) -> None:
    with pytest.raises(ModelError):
        WrappedEncoder(package_object)(torch.zeros(1, 3, 250, 250))

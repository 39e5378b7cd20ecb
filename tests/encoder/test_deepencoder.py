from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.deepseek_reference import ReferenceModel, randomise
from support.encoders import publish_as_deepseek, random_pages, small_config, small_encoder
from torch import nn
from transformers import UnlimitedOcrVisionModel

from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.deepencoder import DeepEncoder, tokens_for
from ocrmem.encoder.device import pick_device
from ocrmem.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    return randomise(ReferenceModel(small_config()))


@pytest.fixture(scope="module")
def published(reference: ReferenceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_as_deepseek(tmp_path_factory.mktemp("published"), reference, small_config())


@pytest.mark.parametrize("size", [128, 256, 320])
def test_concat_is_what_deepseeks_own_decoder_saw(reference: ReferenceModel, published: Path, size: int) -> None:
    pages = random_pages(2, size)
    tokens_map = reference.sam_model(pages)
    tokens = tokens_map.flatten(2).transpose(1, 2)
    expected = torch.cat([reference.vision_model(tokens_map)[:, 1:], tokens], dim=-1)
    features = DeepEncoder.from_pretrained(published, features="concat")(pages)
    assert features.shape == (2, (size // 32) ** 2, 128)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)


def test_sum_leaves_the_class_token_out_of_attention(published: Path) -> None:
    pages = random_pages(1, 256)
    added = DeepEncoder.from_pretrained(published)(pages)
    concat = DeepEncoder.from_pretrained(published, features="concat")(pages)
    assert added.shape == (1, 64, 64)
    assert not torch.allclose(added, sum(concat.chunk(2, dim=-1)), atol=1e-2)


@pytest.mark.parametrize("features", ["sum", "concat"])
def test_tokens_come_row_by_row_from_the_top_left(features: str) -> None:
    encoder = small_encoder(features)
    blank = torch.ones(1, 3, 256, 256)
    inked = blank.clone()
    inked[:, :, 32:64, 96:128] = -1.0
    changed = (encoder(inked) - encoder(blank)).norm(dim=-1)[0]
    assert int(changed.argmax()) == 1 * 8 + 3


@pytest.mark.parametrize("features", ["sum", "concat"])
def test_a_page_has_the_same_features_alone_and_in_a_batch(features: str) -> None:
    encoder = small_encoder(features)
    pages = random_pages(3, 256)
    torch.testing.assert_close(encoder(pages)[1:2], encoder(pages[1:2]), atol=1e-5, rtol=0)


def test_parameters_are_as_many_as_the_published_encoder_has() -> None:
    with torch.device("meta"):
        added, concat = DeepEncoder(deepseek_ocr_config()), DeepEncoder(deepseek_ocr_config(), "concat")
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in added.named_children()}
    assert count == {"sam_encoder": 95_569_152, "vision_encoder": 302_311_424}
    assert sum(p.numel() for p in added.parameters()) == 397_880_576
    # The class token and the position table are parameters of DeepSeek's own path.
    assert sum(p.numel() for p in concat.parameters()) == 397_880_576 + 1024 + 257 * 1024
    assert (added.feature_size, concat.feature_size, added.token_size) == (1024, 2048, 64)


@pytest.mark.parametrize(("page_size", "tokens"), [(512, 64), (640, 100), (1024, 256), (1280, 400), (64, 1)])
def test_tokens_of_deepseeks_page_sizes(page_size: int, tokens: int) -> None:
    assert tokens_for(page_size, 64) == tokens


@pytest.mark.parametrize("page_size", [0, -64, 63, 1000])
def test_pages_that_tokens_do_not_tile_are_refused(page_size: int) -> None:
    with pytest.raises(ModelError, match="not a multiple of the 64 px"):
        tokens_for(page_size, 64)


@pytest.mark.parametrize("shape", [(3, 256, 256), (1, 1, 256, 256), (1, 3, 256, 128), (1, 3, 250, 250), (1, 3, 0, 0)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError):
        small_encoder()(torch.zeros(shape))


@pytest.mark.parametrize("features", ["sum", "concat"])
def test_every_parameter_is_frozen_and_the_state_is_whole(features: str) -> None:
    encoder = small_encoder(features)
    assert not any(p.requires_grad for p in encoder.parameters())
    native = UnlimitedOcrVisionModel(small_config()).state_dict()
    assert encoder.state_dict().keys() == native.keys()


@pytest.mark.parametrize("features", ["sum", "concat"])
def test_a_projector_gets_the_same_gradients_whether_autograd_sees_the_encoder_or_not(features: str) -> None:
    encoder = small_encoder(features)
    pages = random_pages(2, 256)
    plain, hidden = nn.Linear(encoder.feature_size, 4), nn.Linear(encoder.feature_size, 4)
    hidden.load_state_dict(plain.state_dict())
    tokens = encoder(pages)
    assert not tokens.requires_grad
    assert not tokens.is_inference()
    plain(tokens).square().mean().backward()
    with torch.no_grad():
        tokens = encoder(pages)
    hidden(tokens).square().mean().backward()
    assert torch.equal(plain.weight.grad, hidden.weight.grad)
    assert plain.weight.grad.abs().max() > 0


def test_a_random_encoder_of_transformers_default_config_still_looks_at_the_page() -> None:
    encoder = DeepEncoder(small_config(initializer_range=1e-10))
    features = encoder(random_pages(2, 256))
    assert (features[0] - features[1]).abs().max() > 1e-2


def test_weights_come_in_the_dtype_asked_for(published: Path) -> None:
    encoder = DeepEncoder.from_pretrained(published, dtype=torch.bfloat16)
    assert {t.dtype for t in encoder.state_dict().values()} == {torch.bfloat16}
    features = encoder(random_pages(1, 256))
    assert features.dtype == torch.bfloat16
    full = DeepEncoder.from_pretrained(published)(random_pages(1, 256))
    assert (features.float() - full).norm() / full.norm() < 0.05


def test_the_hash_of_the_weights_follows_values_and_not_the_file(published: Path, tmp_path: Path) -> None:
    encoder = DeepEncoder.from_pretrained(published)
    encoder.save(tmp_path)
    same = DeepEncoder.from_pretrained(tmp_path, features="concat")
    assert same.weights_sha256() == encoder.weights_sha256()
    half = DeepEncoder.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.to(torch.float32).weights_sha256() == half.to(torch.bfloat16).weights_sha256()
    same.sam_encoder.pos_embed[0, 0, 0, 0] += 1
    assert same.weights_sha256() != encoder.weights_sha256()


def test_an_unknown_feature_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.features"):
        DeepEncoder(small_config(), "mean")


def test_a_missing_gpu_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"model\.device"):
        pick_device("cuda")
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.slow
def test_full_size_features_equal_two_other_implementations(tmp_path: Path) -> None:
    """398M parameters, every one of them taking part, against the reference and the real package."""
    package = pytest.importorskip("deepseek_ocr_encoder")
    reference = randomise(ReferenceModel(deepseek_ocr_config())).requires_grad_(False)
    save_file(
        {f"model.{name}": tensor for name, tensor in reference.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_vl_v2", "vision_config": {}}')
    pages = random_pages(1, 320)
    tokens_map = reference.sam_model(pages)
    tokens = tokens_map.flatten(2).transpose(1, 2)
    expected = torch.cat([reference.vision_model(tokens_map)[:, 1:], tokens], dim=-1)
    inner = package.DeepSeekOCREncoder(reference, device="cpu", dtype=torch.float32)
    expected_sum = inner._forward_core(pages).clone()
    del reference, inner  # 1.6 GB, and loading takes twice that

    concat = DeepEncoder.from_pretrained(tmp_path, features="concat")
    features = concat(pages)
    assert features.shape == (1, 25, 2048)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(DeepEncoder(concat.config, "sum", concat)(pages), expected_sum, atol=1e-4, rtol=0)

"""The configured encoder: which implementation of it runs, and that every verb gets the same features from either."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.encoders import small_encoder
from support.evaluated import workspace_with_adapter
from support.page_dataset import written_page

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.encoder import comparison
from ocrmem.encoder.comparison import compare_implementations
from ocrmem.encoder.encode import encode_dataset
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.encoder.loading import encoder_geometry, load_encoder
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.encoder.wrapped_encoder import PACKAGE, WrappedEncoder
from ocrmem.errors import CheckFailed, ConfigError, MissingInputError
from ocrmem.evaluation.evaluate import evaluate
from ocrmem.generation.generate import generate
from ocrmem.model.base import build_base

Named = Callable[..., RunConfig]


@pytest.fixture
def named(tmp_path: Path) -> Named:
    """Settings that name a small encoder of 256 px pages, with changed fields of the section model."""
    small_encoder().save(tmp_path / "encoder")
    names = {"base_model_name": "mine", "ocr_model_name": str(tmp_path / "encoder"), "device": "cpu"}

    def config(**model: object) -> RunConfig:
        return RunConfig.model_validate(
            {
                "model": names | {"vision_embedding_size": 64} | model,
                "render": {"page_size": 256, "token_size": 32, "line_height": 32},
            }
        )

    return config


def test_the_configured_encoder_is_loaded(named: Named) -> None:
    encoder = load_encoder(named(features="concat", vision_embedding_size=128, precision="bfloat16"))
    assert encoder.features == "concat"
    assert encoder.dtype == torch.float32  # a CPU is slower in 16 bits
    assert encoder.device.type == "cpu"
    assert encoder_geometry(named()).to_dict() == encoder.config.to_dict()


def test_a_tiny_encoder_that_was_not_built_says_so_and_asks_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match="Run `ocrmem base` first"):
        load_encoder(RunConfig())


def test_the_package_is_built_around_the_configured_weights(named: Named) -> None:
    pytest.importorskip("deepseek_ocr_encoder")
    native, package = load_encoder(named()), load_encoder(named(encoder=PACKAGE))
    assert isinstance(package, WrappedEncoder)
    assert (package.feature_size, package.token_size) == (64, 32)  # the package itself knows 1024 alone
    pages = [written_page(seed) for seed in range(3)]
    assert torch.equal(package.pixels(package.packed(pages)), native.pixels(native.packed(pages)))
    assert (encode_pages(package, pages) - encode_pages(native, pages)).abs().max() < 1e-4


def test_a_missing_package_names_its_extra(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepseek_ocr_encoder", None)
    with pytest.raises(ConfigError, match=r"model\.encoder: needs the package .* pip install 'ocrmem\[encoder\]'"):
        load_encoder(named(encoder=PACKAGE))


@pytest.mark.parametrize("encoder", ["native", PACKAGE])
def test_both_implementations_are_compared_on_a_page(
    named: Named, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("deepseek_ocr_encoder")
    found = compare_implementations(named(encoder=encoder))
    assert (found["page_size"], found["tokens"], found["width"]) == (256, 64, 64)
    assert found["difference"] <= found["tolerance"] == 1e-4
    forward = WrappedEncoder.forward
    monkeypatch.setattr(WrappedEncoder, "forward", lambda self, pixels: 1.001 * forward(self, pixels))
    with pytest.raises(CheckFailed, match=r"base --verify-encoder: .* more than 0.0001 in float32"):
        compare_implementations(named(encoder=encoder))


def test_base_compares_when_it_is_asked_to(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    found = comparison.Comparison(summary=["encoder: the same"])  # type: ignore[typeddict-item]
    monkeypatch.setattr(comparison, "compare_implementations", lambda config: found)
    monkeypatch.setattr("ocrmem.model.base._build", lambda config: {"encoder": "mine", "summary": ["base: loads"]})
    assert build_base(named())["summary"] == ["base: loads"]
    assert build_base(named(), verify_encoder=True)["summary"] == ["base: loads", "encoder: the same"]


def test_encode_evaluate_and_generate_run_on_the_package(tmp_path: Path) -> None:
    pytest.importorskip("deepseek_ocr_encoder")
    config = workspace_with_adapter(tmp_path)
    lines = (Path(config.data.path) / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "question.json").write_text(lines[0], encoding="utf-8")
    by_native = generate(config, conversation=tmp_path / "question.json")
    native = FeatureStore.open(config.paths.features)

    wrapped = config.model_copy(update={"model": config.model.model_copy(update={"encoder": PACKAGE})})
    by_package = encode_dataset(wrapped)
    assert by_package["encoded"] == by_package["pages"]  # rows of one implementation are not taken for the other's
    package = FeatureStore.open(config.paths.features)
    for page in MemoryDataset.open(config.paths.dataset).page_hashes():
        assert (package.get(page) - native.get(page)).abs().max() < 1e-4
    assert evaluate(wrapped)["memory"]["samples"] > 0
    assert generate(wrapped, conversation=tmp_path / "question.json")["answer"] == by_native["answer"]

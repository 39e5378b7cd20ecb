"""The verb ``encode`` on real pages in a real dataset directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import export_original, small_config, small_encoder
from support.page_dataset import write_page_dataset, written_page
from transformers import UnlimitedOcrVisionModel

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.encoder import encoder_pool
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.encode import encode_dataset
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.encoder.overlap import AHEAD
from ocrmem.encoder.page_encoding import batch_size, encode_pages
from ocrmem.errors import CheckFailed, ConfigError, DataError, MissingInputError
from ocrmem.rendering.page import Page

BATCH = batch_size(256, torch.device("cpu"))
KILL_AFTER = 3  # batches


class Counting(DeepEncoder):
    """Counts the pages that reach it, and stops like a power cut when told to."""

    pages = 0
    stop: Callable[[int], None] | None = None

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pages += len(pixels)
        if self.stop is not None:
            self.stop(self.pages)
        return super().forward(pixels)


def counting_encoder(seed: int = 0, features: str = "sum") -> Counting:
    encoder = Counting(small_config(), features)
    encoder.load_state_dict(small_encoder(seed=seed).state_dict())
    return encoder


def run_config(directory: Path, **model: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"vision_embedding_size": 64, "device": "cpu"} | model,
            "render": {"page_size": 256, "token_size": 32},
            "paths": {"dataset": str(directory / "dataset"), "features": str(directory / "features")},
        }
    )


def pages(count: int, first: int = 0) -> list[Page]:
    return [written_page(seed) for seed in range(first, first + count)]


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((directory / "features").iterdir())}


@pytest.mark.parametrize(
    ("precision", "features", "width"),
    [("float32", "sum", 64), ("bfloat16", "sum", 64), ("float16", "concat", 128)],
)
def test_every_page_is_stored_as_the_encoder_sees_it(tmp_path: Path, precision: str, features: str, width: int) -> None:
    drawn = pages(BATCH + 3)
    write_page_dataset(tmp_path / "dataset", drawn)
    encoder = counting_encoder(features=features)
    config = run_config(tmp_path, precision=precision, features=features, vision_embedding_size=width)
    result = encode_dataset(config, encoder)
    assert (result["encoded"], result["pages"], encoder.pages) == (BATCH + 3, BATCH + 3, BATCH + 3)
    dataset = MemoryDataset.open(tmp_path / "dataset")
    store = FeatureStore.open(tmp_path / "features", pages=dataset.page_hashes(), feature_size=width)
    assert store.dtype == getattr(torch, precision)
    expected = encode_pages(encoder, drawn).to(store.dtype)
    for page, row in zip(drawn, expected, strict=True):
        assert torch.equal(store.get(page.hash), row)


@pytest.mark.parametrize("drop_blank", [True, False])
def test_statistics_are_those_of_the_kept_tokens(tmp_path: Path, drop_blank: bool) -> None:
    drawn = pages(5)
    write_page_dataset(tmp_path / "dataset", drawn, drop_blank=drop_blank)
    encode_dataset(run_config(tmp_path), counting_encoder())
    store = FeatureStore.open(tmp_path / "features")
    dataset = MemoryDataset.open(tmp_path / "dataset")
    kept = [dataset.kept(page.hash) for page in drawn]
    tokens = store.gather([page.hash for page in drawn], kept)
    assert len(tokens) == 5 * (32 if drop_blank else 64)
    torch.testing.assert_close(store.mean, tokens.mean(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(store.std, tokens.std(dim=0, correction=0), atol=1e-5, rtol=0)


def test_a_second_run_encodes_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", pages(4))
    encode_dataset(run_config(tmp_path), counting_encoder())
    before = content(tmp_path)
    encoder = counting_encoder()
    result = encode_dataset(run_config(tmp_path), encoder)
    assert (result["encoded"], encoder.pages) == (0, 0)
    assert content(tmp_path) == before


def test_of_a_grown_dataset_only_the_new_pages_are_encoded(tmp_path: Path) -> None:
    old, new = pages(5), pages(3, first=100)
    write_page_dataset(tmp_path / "dataset", old)
    encode_dataset(run_config(tmp_path), counting_encoder())
    grown = [*new, *old[1:]]
    write_page_dataset(tmp_path / "dataset", grown)
    encoder = counting_encoder()
    result = encode_dataset(run_config(tmp_path), encoder)
    assert (result["encoded"], encoder.pages, result["unused_rows"]) == (3, 3, 1)
    assert any("no longer has" in line for line in result["summary"])
    store = FeatureStore.open(tmp_path / "features", pages=[page.hash for page in grown])
    expected = encode_pages(encoder, grown)
    for page, row in zip(grown, expected, strict=True):
        torch.testing.assert_close(store.get(page.hash), row, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changed",
    [{"precision": "bfloat16"}, {"features": "concat", "vision_embedding_size": 128}, "weights"],
)
def test_rows_of_another_encoder_or_dtype_are_never_reused(tmp_path: Path, changed: object) -> None:
    write_page_dataset(tmp_path / "dataset", pages(3))
    encode_dataset(run_config(tmp_path), counting_encoder())
    model = changed if isinstance(changed, dict) else {}
    encoder = counting_encoder(seed=1 if changed == "weights" else 0, features=str(model.get("features", "sum")))
    assert encode_dataset(run_config(tmp_path, **model), encoder)["encoded"] == 3
    assert len(content(tmp_path)) == 4


def test_the_manifest_tells_where_the_features_came_from(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", pages(2))
    encoder = counting_encoder()
    config = run_config(tmp_path, ocr_model_name="deepseek-ai/DeepSeek-OCR", ocr_revision="abc")
    encode_dataset(config, encoder)
    manifest = FeatureStore.open(tmp_path / "features").manifest
    assert manifest["encoder"] == "deepseek-ai/DeepSeek-OCR"
    assert manifest["revision"] == "abc"
    assert manifest["weights_sha256"] == encoder.weights_sha256()
    assert (manifest["features"], manifest["dtype"], manifest["dataset_pages"]) == ("sum", "float32", 2)


def test_the_configured_encoder_is_used_when_none_is_given(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", pages(2))
    small_encoder(seed=6).save(tmp_path / "encoder")
    result = encode_dataset(run_config(tmp_path, ocr_model_name=str(tmp_path / "encoder")))
    assert result["manifest"]["weights_sha256"] == small_encoder(seed=6).weights_sha256()


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    drawn = pages(4 * BATCH + 5)
    write_page_dataset(tmp_path / "whole" / "dataset", drawn)
    encode_dataset(run_config(tmp_path / "whole"), counting_encoder())

    write_page_dataset(tmp_path / "stopped" / "dataset", drawn)

    def interrupt(seen: int) -> None:
        if seen > KILL_AFTER * BATCH:
            raise KeyboardInterrupt

    encoder = counting_encoder()
    encoder.stop = interrupt
    with pytest.raises(KeyboardInterrupt):
        encode_dataset(run_config(tmp_path / "stopped"), encoder)
    with pytest.raises(MissingInputError, match=r"is not there\. Run `ocrmem encode`"):
        FeatureStore.open(tmp_path / "stopped" / "features")
    encoder = counting_encoder()
    result = encode_dataset(run_config(tmp_path / "stopped"), encoder)
    assert encoder.pages == result["encoded"] == len(drawn) - KILL_AFTER * BATCH
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_a_row_that_was_damaged_since_it_was_encoded_is_not_published_again(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", pages(3))
    encode_dataset(run_config(tmp_path), counting_encoder())
    rows = next((tmp_path / "features").glob("rows-*.bin"))
    rows.write_bytes(b"?" + rows.read_bytes()[1:])
    with pytest.raises(MissingInputError, match="was changed or damaged: the features of page"):
        encode_dataset(run_config(tmp_path), counting_encoder())


@pytest.mark.slow
def test_a_run_killed_with_kill_9_ends_in_the_same_bytes(tmp_path: Path) -> None:
    drawn = pages(4 * BATCH + 5)
    for name in ("whole", "killed"):
        write_page_dataset(tmp_path / name / "dataset", drawn)
    encode_dataset(run_config(tmp_path / "whole"), counting_encoder())
    child = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (tmp_path / "killed" / "features" / "manifest.json").exists()
    result = encode_dataset(run_config(tmp_path / "killed"), counting_encoder())
    written = len(drawn) - result["encoded"]
    assert written % BATCH == 0
    assert (KILL_AFTER - AHEAD) * BATCH <= written <= KILL_AFTER * BATCH
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.fixture
def saved(tmp_path: Path) -> RunConfig:
    """Settings that name an encoder on disk, and a dataset of five batches."""
    encoder = small_encoder()
    export_original(tmp_path / "encoder", encoder.config, encoder.state_dict())
    write_page_dataset(tmp_path / "dataset", pages(4 * BATCH + 5))
    return run_config(tmp_path, ocr_model_name=str(tmp_path / "encoder"))


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(saved: RunConfig, tmp_path: Path) -> None:
    result = encode_dataset(saved, processes=2)
    assert result["encoded"] == 4 * BATCH + 5
    found = content(tmp_path)
    shutil.rmtree(tmp_path / "features")
    encode_dataset(saved)
    assert content(tmp_path) == found


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_with_a_remedy(saved: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_pool, "_encoder", _die)
    with pytest.raises(DataError, match="lower --nproc"):
        encode_dataset(saved, processes=2)


def _die(*_: object) -> None:
    os._exit(9)


def test_a_loaded_encoder_is_not_for_several_processes(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", pages(1))
    with pytest.raises(ConfigError, match="2 processes"):
        encode_dataset(run_config(tmp_path), counting_encoder(), processes=2)


def page_blind_encoder() -> DeepEncoder:
    """What transformers' default SAM config gives when it is initialised as it is."""
    config = small_config(initializer_range=1e-10)
    return DeepEncoder(config, "sum", UnlimitedOcrVisionModel(config))


@pytest.mark.parametrize("count", [1, 2, 3 * BATCH])
def test_features_that_do_not_depend_on_the_page_are_refused_with_the_cause(tmp_path: Path, count: int) -> None:
    write_page_dataset(tmp_path / "dataset", pages(count))
    with pytest.raises(CheckFailed, match=r"do not depend on the page.*initializer_range.*1e-10"):
        encode_dataset(run_config(tmp_path), page_blind_encoder())
    assert not (tmp_path / "features" / "manifest.json").exists()
    rows = next((tmp_path / "features").glob("rows-*.bin")).stat().st_size
    assert rows <= BATCH * 64 * 64 * 4  # given up early


def test_one_page_alone_is_compared_with_an_empty_one(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", pages(1))
    assert encode_dataset(run_config(tmp_path), counting_encoder())["pages"] == 1


def test_pages_that_differ_in_one_character_cell_are_different_enough(tmp_path: Path) -> None:
    first = written_page(0)
    bits = first.bits.copy()
    bits[8:24, 0] ^= 0x18
    write_page_dataset(tmp_path / "dataset", [first, Page(bits, "test")])
    assert encode_dataset(run_config(tmp_path), counting_encoder())["pages"] == 2


def test_features_that_are_not_finite_name_the_page(tmp_path: Path) -> None:
    drawn = pages(3)
    write_page_dataset(tmp_path / "dataset", drawn)
    encoder = counting_encoder()
    encoder.vision_encoder.pre_layrnorm.weight.fill_(float("nan"))
    with pytest.raises(CheckFailed, match=f"page {drawn[0].hash}: features are not finite"):
        encode_dataset(run_config(tmp_path), encoder)


@pytest.mark.parametrize(
    ("section", "change", "field"),
    [
        ("model", {"vision_embedding_size": 512}, r"model\.vision_embedding_size: is 512.*gives 64"),
        ("render", {"token_size": 64}, r"render\.token_size: is 64 px.*is 32 px"),
    ],
)
def test_an_encoder_that_does_not_fit_the_configuration_is_refused(
    tmp_path: Path, section: str, change: dict[str, object], field: str
) -> None:
    token_size = int(str(change.get("token_size", 32)))
    write_page_dataset(tmp_path / "dataset", pages(1), token_size=token_size)
    values = run_config(tmp_path).as_dict()
    values[section] |= change
    with pytest.raises(ConfigError, match=field):
        encode_dataset(RunConfig.model_validate(values), counting_encoder())


def test_a_dataset_without_pages_is_refused(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", [])
    with pytest.raises(DataError, match="has no pages"):
        encode_dataset(run_config(tmp_path), counting_encoder())


def test_a_dataset_of_other_page_sizes_is_refused(tmp_path: Path) -> None:
    write_page_dataset(tmp_path / "dataset", [written_page(0, 512)])
    with pytest.raises(DataError, match=r"512 px .* says 256 and 32"):
        encode_dataset(run_config(tmp_path), counting_encoder())


def test_a_page_whose_pixels_are_not_those_of_its_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_page_dataset(tmp_path / "dataset", pages(2))
    monkeypatch.setattr(MemoryDataset, "page", lambda self, name: written_page(77))
    with pytest.raises(DataError, match="other pixels than its hash says"):
        encode_dataset(run_config(tmp_path), counting_encoder())


def test_no_dataset_names_the_verb_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="ocrmem render"):
        encode_dataset(run_config(tmp_path), counting_encoder())


def test_pages_are_encoded_without_recording_gradients_and_in_batches() -> None:
    encoder = counting_encoder()
    sizes: list[int] = []
    encoder.stop = sizes.append
    features = encode_pages(encoder, pages(2 * BATCH + 1))
    assert features.shape == (2 * BATCH + 1, 64, 64)
    assert sizes == [BATCH, 2 * BATCH, 2 * BATCH + 1]
    assert not features.requires_grad
    assert not features.is_inference()
    assert np.isfinite(features.numpy()).all()


@pytest.mark.parametrize(
    ("size", "device", "count"), [(1024, "cpu", 1), (1280, "cpu", 1), (256, "cpu", 16), (1024, "cuda", 16)]
)
def test_a_batch_holds_what_the_device_gains_from(size: int, device: str, count: int) -> None:
    assert batch_size(size, torch.device(device)) == count


def encode_and_die(directory: Path) -> None:
    def kill(seen: int) -> None:
        if seen > KILL_AFTER * BATCH:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    encoder = counting_encoder()
    encoder.stop = kill
    encode_dataset(run_config(directory), encoder)


if __name__ == "__main__":
    encode_and_die(Path(sys.argv[1]))

"""Opening a dataset, and saying what is wrong with one that cannot be opened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.flipped import flipped

from ocrmem.dataset import shards
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.errors import DataError, MissingInputError
from ocrmem.files import sha256_file, verified, write_json
from ocrmem.json_files import with_sha256


@pytest.fixture
def dataset_path(make_config, small_data, monkeypatch) -> Path:
    # Row groups of five pages, so that readers have to cross them.
    monkeypatch.setattr(shards, "PAGE_ROWS", 5)
    config = make_config()
    build_dataset(config)
    return Path(config.paths.dataset)


def first_shard(root: Path, kind: str) -> tuple[Path, dict, dict]:
    """The first shard whose path starts so, its line in the manifest, and the manifest."""
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    shard = next(shard for shard in manifest["shards"] if shard["path"].startswith(kind))
    return root / shard["path"], shard, manifest


def write_manifest(root: Path, manifest: dict) -> None:
    """Write a manifest that covers itself and, of the shards, what they now are."""
    for shard in manifest["shards"]:
        content = (root / shard["path"]).read_bytes()
        shard.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    write_json(root / "manifest.json", with_sha256(manifest))


def test_pages_come_back_by_hash(dataset_path):
    dataset = MemoryDataset.open(dataset_path)
    names = list(dataset.page_hashes())
    for name in reversed(names):
        assert dataset.page(name).hash == name


def test_kept_tokens_are_the_patches_with_ink(dataset_path):
    dataset = MemoryDataset.open(dataset_path)
    for name in dataset.page_hashes():
        kept = dataset.kept(name)
        assert kept.dtype == bool
        assert kept.shape == (dataset.tokens_per_page,)
        assert np.array_equal(kept, dataset.page(name).ink_mask(dataset.token_size))


def test_messages_that_samples_share_are_one_object(dataset_path):
    samples = [s for s in MemoryDataset.open(dataset_path).samples("train") if s.conversation_id == "t3"]
    assert samples[-1].history[0] is samples[-2].history[0]


def test_no_dataset_names_the_verb_to_run(tmp_path):
    with pytest.raises(MissingInputError, match="Run `ocrmem render`"):
        MemoryDataset.open(tmp_path / "dataset")


def test_another_schema_version_is_refused(dataset_path):
    _, _, manifest = first_shard(dataset_path, "pages")
    write_manifest(dataset_path, manifest | {"schema_version": 99})
    with pytest.raises(MissingInputError, match="schema_version: Input should be 2"):
        MemoryDataset.open(dataset_path)


@pytest.mark.parametrize("content", ["[]", "{", "null"])
def test_a_manifest_that_is_none_is_refused(dataset_path, content):
    (dataset_path / "manifest.json").write_text(content)
    with pytest.raises((DataError, MissingInputError), match=r"manifest\.json: .*Run `ocrmem render`"):
        MemoryDataset.open(dataset_path)


def test_a_missing_shard_is_named(dataset_path):
    path, _, _ = first_shard(dataset_path, "samples")
    path.unlink()
    with pytest.raises(MissingInputError, match=path.name):
        MemoryDataset.open(dataset_path)


def test_a_shard_of_another_size_is_named(dataset_path):
    path, _, _ = first_shard(dataset_path, "samples")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=path.name):
        MemoryDataset.open(dataset_path)


@pytest.mark.parametrize("kind", ["pages", "samples/train", "samples/eval", "samples/counterfactual"])
def test_no_bit_of_a_shard_can_change(dataset_path, kind):
    path, _, _ = first_shard(dataset_path, kind)
    content = path.read_bytes()
    for damaged in flipped(content, kind):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{path.name}: was changed or damaged.*Run `ocrmem render` again"):
            MemoryDataset.open(dataset_path)
    path.write_bytes(content)
    MemoryDataset.open(dataset_path)


def test_every_shard_that_was_changed_is_named(dataset_path):
    for kind in ("pages", "samples"):
        path, _, _ = first_shard(dataset_path, kind)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError) as caught:
        MemoryDataset.open(dataset_path)
    assert len(caught.value.problems) == 2


def test_a_shard_that_changes_after_it_was_opened_is_not_read(dataset_path):
    dataset = MemoryDataset.open(dataset_path)
    samples = dataset.samples("train")
    reads = {"pages": lambda: dataset.page(dataset.page_hashes()[0]), "samples/train": lambda: samples[0]}
    for kind, read in reads.items():
        path, _, _ = first_shard(dataset_path, kind)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        with pytest.raises(DataError, match=path.name):
            read()


def test_each_shard_is_hashed_once_a_process(dataset_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(verified, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    for path in dataset_path.rglob("*.parquet"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    for _ in range(2):
        dataset = MemoryDataset.open(dataset_path)
        list(dataset.samples("train")), dataset.page(dataset.page_hashes()[0])
    assert sorted(hashed) == sorted(path.name for path in dataset_path.rglob("*.parquet"))
    # A file that has just been written can be written again without a change of its time.
    path, _, _ = first_shard(dataset_path, "pages")
    os.utime(path)
    hashed.clear()
    MemoryDataset.open(dataset_path), MemoryDataset.open(dataset_path)
    assert hashed.count(path.name) > 1


def test_a_manifest_cannot_be_edited_and_names_nothing_outside(dataset_path):
    _, shard, manifest = first_shard(dataset_path, "pages")
    shutil.copy(dataset_path / shard["path"], dataset_path.parent / "elsewhere.parquet")
    shard["path"] = "../elsewhere.parquet"
    write_manifest(dataset_path, manifest)
    with pytest.raises(MissingInputError, match=r"manifest\.json: .*shards\.[0-9]+\.path"):
        MemoryDataset.open(dataset_path)
    (dataset_path / "manifest.json").write_text(json.dumps({**manifest, "counts": {}}), encoding="utf-8")
    with pytest.raises(MissingInputError, match="it has not the sha256 that it says"):
        MemoryDataset.open(dataset_path)
    del manifest["sha256"]
    (dataset_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(MissingInputError, match=r"no sha256 of itself: an earlier ocrmem .*Run `ocrmem render`"):
        MemoryDataset.open(dataset_path)


@pytest.mark.parametrize("kind", ["pages", "samples/train"])
def test_a_shard_that_is_no_parquet_is_an_error_not_a_traceback(dataset_path, kind):
    path, shard, manifest = first_shard(dataset_path, kind)
    path.write_bytes(b"x" * shard["bytes"])
    write_manifest(dataset_path, manifest)
    with pytest.raises(DataError, match=f"{path.name}: cannot be read .*Parquet"):
        MemoryDataset.open(dataset_path).samples("train")


@pytest.mark.parametrize("kind", ["pages", "samples/train"])
def test_a_wrong_number_of_rows_is_found(dataset_path, kind):
    _, shard, manifest = first_shard(dataset_path, kind)
    shard["rows"] += 1
    write_manifest(dataset_path, manifest)
    with pytest.raises(DataError, match="rows, the manifest says"):
        MemoryDataset.open(dataset_path).samples("train")


def test_another_table_in_the_place_of_a_shard_is_found(dataset_path):
    pages, _, manifest = first_shard(dataset_path, "pages")
    samples, shard, _ = first_shard(dataset_path, "samples/train")
    pages_shard = next(s for s in manifest["shards"] if s["path"].startswith("pages"))
    pages.write_bytes(samples.read_bytes())
    pages_shard.update(rows=shard["rows"])
    write_manifest(dataset_path, manifest)
    with pytest.raises(DataError, match=r"has the columns id \(string\), conversation_id"):
        MemoryDataset.open(dataset_path)


def test_unknown_pages_and_splits_are_errors(dataset_path):
    dataset = MemoryDataset.open(dataset_path)
    for ask in (dataset.page, dataset.kept):
        with pytest.raises(DataError, match="has no page 0000"):
            ask("0000")
    with pytest.raises(DataError, match="not a split"):
        dataset.samples("test")  # type: ignore[arg-type]

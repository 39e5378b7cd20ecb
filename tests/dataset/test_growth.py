"""What must not grow with the number of turns or samples: counted, not timed."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.chat import conversation, write_jsonl

from ocrmem.conversations import SPLITS, locate_conversations, read_conversations
from ocrmem.dataset import build, schema, shards, stored_samples, tables
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.expectations import expectations
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.schema import banded, unbanded
from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.errors import DataError
from ocrmem.tokens import load_tokenizer


@pytest.fixture
def dataset(make_config, small_data, monkeypatch) -> MemoryDataset:
    # Row groups of five samples, so that readers have to cross them.
    monkeypatch.setattr(shards, "SAMPLE_ROWS", 5)
    config = make_config()
    build_dataset(config)
    return MemoryDataset.open(config.paths.dataset)


def test_pages_stored_grow_with_the_text_and_not_with_turns_times_text(make_config):
    config = make_config(
        render={"page_size": 512, "max_pages": 200}, model={"context_threshold": 8, "max_seq_length": 40_000}
    )
    maker = SampleMaker(config, load_tokenizer(config))
    referred, stored_pages, full = {}, {}, {}
    for turns in (8, 16, 32):
        made = maker.make(read_one(conversation(f"k{turns}", turns, words=40)))
        referred[turns] = sum(len(sample.pages) for sample in made.samples)
        stored_pages[turns] = len(made.pages)
        full[turns] = max(len(sample.pages) for sample in made.samples)
    for turns in (16, 32):
        # A page of its own for the end of each history, and the full ones once.
        assert stored_pages[turns] <= turns + full[turns]
        assert stored_pages[turns] <= 2.3 * stored_pages[turns // 2]
    assert referred[32] > 3 * referred[16] > 9 * referred[8] > 0, "what is referred to grows with the square"
    assert referred[32] > 2 * stored_pages[32]


def read_one(line: dict):
    from ocrmem.conversations import Conversation, Message

    messages = tuple(Message(m["role"], m["content"]) for m in line["messages"])
    return Conversation(line["id"], messages, "train", "here")


def counted_reads(samples: StoredSamples) -> list[int]:
    """The row groups that ``samples`` reads from now on."""
    reads: list[int] = []
    read = samples._read
    samples._read = lambda number: (reads.append(number), read(number))[1]
    return reads


def test_samples_are_a_sequence_that_reads_a_group_when_it_is_asked(dataset):
    samples = dataset.samples("train")
    in_order = list(samples)
    assert len(in_order) == len(samples) > 10
    fresh = dataset.samples("train")
    reads = counted_reads(fresh)
    begin, end = fresh._starts[1:3]
    assert fresh[begin] == in_order[begin]
    assert len(reads) == 1
    assert [fresh[i] for i in range(begin, end)] == in_order[begin:end]
    assert len(reads) == 1, "samples of one group are decoded together"
    assert fresh[-1] == in_order[-1]
    assert fresh[2:4] == in_order[2:4]
    with pytest.raises(IndexError):
        fresh[len(samples)]
    assert [sample.id for sample in pickle.loads(pickle.dumps(fresh))] == [sample.id for sample in in_order]


def test_columns_come_without_reading_samples(dataset):
    samples = dataset.samples("train")
    reads = counted_reads(samples)
    lengths = samples.column("memory_tokens")
    assert not reads
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [sample.memory_tokens for sample in samples]
    assert len(dataset.samples("eval").column("memory_tokens")) == len(dataset.samples("eval"))


def test_few_groups_stay_in_memory(dataset, monkeypatch):
    monkeypatch.setattr(stored_samples, "_CACHED_BYTES", 1)
    samples = dataset.samples("train")
    reads = counted_reads(samples)
    for index in range(len(samples)):
        samples[index]
    assert len(samples._groups) == 1
    assert len(reads) == len(samples._places)


def test_opening_a_dataset_takes_less_than_200_bytes_a_page(dataset):
    pages = len(dataset.page_hashes())
    width = dataset.tokens_per_page // 8
    copied = pickle.loads(pickle.dumps(dataset))
    assert list(copied.page_hashes()) == list(dataset.page_hashes())
    assert copied._masks.nbytes == pages * width
    assert copied._names.digests.nbytes == 32 * pages
    assert copied.kept_counts().tolist() == [int(copied.kept(name).sum()) for name in copied.page_hashes()]


def test_conversations_are_located_and_not_held(make_config, small_data):
    config = make_config()
    located = locate_conversations(config)
    assert located.read(range(len(located))) == tuple(read_conversations(config))
    assert located.read(range(3, 5)) == tuple(read_conversations(config)[3:5])
    lines = [line for path in sorted(small_data.iterdir()) for line in path.read_bytes().splitlines()]
    assert located.bytes_of(range(len(located))) == sum(map(len, lines))
    path = small_data / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(DataError, match="has changed while it was being read"):
        located.read(range(len(located)))


def test_located_conversations_take_bytes_and_not_their_text(make_config, tmp_path):
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", [conversation(f"c{n}", 30) for n in range(200)])
    size = (tmp_path / "data" / "train.jsonl").stat().st_size
    tracemalloc.start()
    try:
        located = locate_conversations(make_config())
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(located) == 200
    assert held < 200 * 400 + 200_000 < size / 3
    assert peak < size / 2


def test_render_reads_conversations_a_shard_at_a_time(make_config, small_data, monkeypatch):
    read: list[int] = []
    located = build.locate_conversations

    def counting(*arguments):
        found = located(*arguments)
        original = found.read
        monkeypatch.setattr(found, "read", lambda rows: (read.append(len(rows)), original(rows))[1])
        return found

    monkeypatch.setattr(build, "locate_conversations", counting)
    build_dataset(make_config())
    assert read == [3, 3, 3, 3]


def test_check_looks_at_a_bounded_part_at_a_time(dataset, monkeypatch):
    whole = {"samples": {}, "pages": {}}
    for table, part in tables.check_tables(dataset):
        whole[table] = part
    monkeypatch.setattr(tables, "PART_ROWS", 4)
    joined: dict[str, dict] = {"samples": {}, "pages": {}}
    for table, part in tables.check_tables(dataset):
        assert {len(values) for values in part.values()} <= set(range(5))
        for name, values in part.items():
            joined[table][name] = joined[table].get(name, []) + values
    assert joined == whole


@pytest.mark.slow
def test_a_fault_in_any_part_fails_the_check(make_config, dataset, monkeypatch):
    from ocrmem.dataset.quality import check_dataset
    from ocrmem.errors import CheckFailed

    samples = sum(dataset.manifest["counts"]["samples"].values())
    monkeypatch.setattr(tables, "PART_ROWS", samples // 2 + 1)
    ratios = sorted(sample.compression_ratio for split in SPLITS for sample in dataset.samples(split))
    strict = make_config(check={"max_compression_ratio": ratios[-2], "min_compression_ratio": 0.0})
    with pytest.raises(CheckFailed, match=r"does not hold for 1 of"):
        check_dataset(strict)
    result = json.loads((Path(strict.paths.checks) / "result.json").read_text(encoding="utf-8"))
    counts = {entry["name"]: entry["checked"] for entry in result["expectations"]}
    assert counts["answers_not_empty"] == samples
    assert counts["page_size"] == len(dataset.page_hashes())
    assert len(counts) == len(expectations(strict, dataset.manifest))


@pytest.mark.parametrize("size", [8, 24, 32, 64, 1024])
def test_pages_are_stored_in_bands_and_come_back(size):
    bits = np.random.default_rng(size).integers(0, 256, size * size // 8, dtype=np.uint8).tobytes()
    assert unbanded(banded(bits)) == bits
    if size >= 16:
        assert banded(bits) != bits


@pytest.mark.parametrize("length", [0, 7, 100])
def test_bits_of_no_page_are_left_as_they_are(length):
    assert unbanded(banded(bytes(range(length)))) == bytes(range(length))


def test_the_documented_order_of_stored_bits_holds():
    size = 64
    rows = np.arange(size * size // 8, dtype=np.uint16).astype(np.uint8).reshape(size, size // 8)
    stored_bytes = np.frombuffer(banded(rows.tobytes()), np.uint8).reshape(size // 16, size // 8, 16)
    assert (stored_bytes[1, 3] == rows[16:32, 3]).all()
    assert schema.SCHEMA_VERSION == 2


def test_a_full_page_of_prose_takes_less_than_25_kb(tmp_path):
    from ocrmem.config import RenderSection
    from ocrmem.dataset.samples import page_row
    from ocrmem.rendering import load_atlas, render_text

    docs = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    text = " ".join(" ".join(path.read_text(encoding="utf-8") for path in docs).split())[:60_000]
    pages = render_text(text, RenderSection(), load_atlas()).pages[:6]
    with shards.page_writer(tmp_path / "pages.parquet") as writer:
        for page in pages:
            writer.add(page_row(page, 64))
    assert (tmp_path / "pages.parquet").stat().st_size < 25_000 * len(pages)
    assert [row.bits for row in shards.read_pages(tmp_path / "pages.parquet")] == [page.to_bytes() for page in pages]

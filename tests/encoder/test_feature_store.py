"""The store as a reader sees it, and what the writer leaves on disk."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from support.flipped import flipped
from support.held import held_elsewhere

from ocrmem.dataset.hash_index import HashIndex
from ocrmem.encoder import feature_store
from ocrmem.encoder.feature_store import FeatureStore, RowFormat, read_journal
from ocrmem.encoder.feature_writer import FeatureWriter, publish
from ocrmem.errors import BusyError, CheckFailed, MissingInputError
from ocrmem.files import sha256_json
from ocrmem.json_files import with_sha256

TOKENS, WIDTH = 4, 3


def row_format(dtype: str = "float32", weights: str = "w") -> RowFormat:
    return RowFormat(weights, "sum", "float32", dtype, 256, TOKENS, WIDTH)


def name(number: int) -> str:
    return f"{number:064x}"


def row(number: int) -> torch.Tensor:
    return torch.arange(TOKENS * WIDTH).reshape(TOKENS, WIDTH) / 7 + number


def write(directory: Path, count: int, dtype: str = "float32", weights: str = "w") -> list[str]:
    pages = [name(number) for number in range(count)]
    format_ = row_format(dtype, weights)
    with FeatureWriter(directory, format_) as writer:
        missing = set(writer.missing(HashIndex.of(pages)).tolist())
        for at in range(0, count, 2):
            new = [pages[number] for number in range(at, min(at + 2, count)) if number in missing]
            if new:
                writer.append(new, torch.stack([row(int(page, 16)) for page in new]))
        about = {"dataset_pages_sha256": sha256_json(pages)}
        publish(directory, format_, len(writer), torch.zeros(WIDTH), torch.ones(WIDTH), about)
    return pages


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_come_back_as_the_dtype_rounds_them(tmp_path: Path, dtype: str) -> None:
    pages = write(tmp_path, 5, dtype)
    store = FeatureStore.open(tmp_path, pages=pages, feature_size=WIDTH)
    for number, page in enumerate(pages):
        assert torch.equal(store.get(page), row(number).to(getattr(torch, dtype)))
    assert (len(store), store.tokens, store.feature_size) == (5, TOKENS, WIDTH)
    size = {"float32": 4, "bfloat16": 2, "float16": 2}[dtype]
    assert (tmp_path / store.manifest["rows"]).stat().st_size == 5 * TOKENS * WIDTH * size
    assert store.manifest["shape"] == [5, TOKENS, WIDTH]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gather_puts_the_kept_tokens_of_pages_one_after_the_other(tmp_path: Path, dtype: str) -> None:
    pages = write(tmp_path, 3, dtype)
    store = FeatureStore.open(tmp_path)
    kept = [np.array([True, False, True, False]), np.zeros(TOKENS, bool), np.ones(TOKENS, bool)]
    expected = torch.cat([row(2)[[0, 2]], row(1)]).to(store.dtype)
    assert torch.equal(store.gather([pages[2], pages[0], pages[1]], kept), expected)
    assert store.gather([pages[0], pages[0]]).shape == (2 * TOKENS, WIDTH)
    assert store.gather([]).shape == (0, WIDTH)
    assert store.gather([]).dtype == store.dtype


def test_gather_copies_each_kept_token_once(tmp_path: Path) -> None:
    """Bytes that numpy holds: the result, and little else."""
    wide = RowFormat("w", "sum", "float32", "float32", 256, TOKENS, 512)
    with FeatureWriter(tmp_path, wide) as writer:
        writer.append([name(0)], torch.randn(1, TOKENS, 512))
        publish(tmp_path, wide, 1, torch.zeros(512), torch.ones(512), {"dataset_pages_sha256": ""})
    store = FeatureStore.open(tmp_path)
    kept = [np.array([True, False, True, True])] * 32
    tracemalloc.start()
    try:
        gathered = store.gather([name(0)] * 32, kept)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert gathered.shape == (32 * 3, 512)
    assert gathered.nbytes <= peak < 1.1 * gathered.nbytes


def test_what_a_caller_writes_into_a_row_does_not_reach_the_store(tmp_path: Path) -> None:
    pages = write(tmp_path, 1)
    store = FeatureStore.open(tmp_path)
    store.get(pages[0]).zero_()
    store.gather(pages).zero_()
    assert torch.equal(store.get(pages[0]), row(0))


def test_a_pickled_store_carries_its_place_and_not_its_rows(tmp_path: Path) -> None:
    pages = write(tmp_path, 20)
    pickled = pickle.dumps(FeatureStore.open(tmp_path))
    assert len(pickled) < 500
    assert torch.equal(pickle.loads(pickled).get(pages[3]), row(3))


def test_a_page_that_was_never_encoded_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1)
    store = FeatureStore.open(tmp_path)
    assert name(9) not in store
    for ask in (lambda: store.get(name(9)), lambda: store.gather([name(9)])):
        with pytest.raises(MissingInputError, match=f"{name(9)}: was never encoded"):
            ask()


def test_a_store_for_other_pages_or_another_width_is_refused(tmp_path: Path) -> None:
    pages = write(tmp_path, 2)
    with pytest.raises(MissingInputError, match=r"another dataset \(1 of 3 pages are missing\)"):
        FeatureStore.open(tmp_path, pages=[*pages, name(9)])
    with pytest.raises(MissingInputError, match=r"another dataset \(0 of 2 pages"):
        FeatureStore.open(tmp_path, pages=pages[::-1])
    with pytest.raises(MissingInputError, match="3 wide, the model expects 1024"):
        FeatureStore.open(tmp_path, feature_size=1024)


def damage_rows(path: Path) -> None:
    rows = next(path.glob("rows-*.bin"))
    rows.write_bytes(rows.read_bytes()[:-1])


def damage_journal(path: Path) -> None:
    next(path.glob("rows-*.txt")).write_text("")


def damage_statistics(path: Path) -> None:
    next(path.glob("statistics-*")).write_bytes(b"nothing")


def change_manifest(**values: object) -> object:
    def change(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text()) | values
        (path / "manifest.json").write_text(json.dumps(with_sha256(manifest)))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_rows, "fewer rows than the 2 of its manifest"),
        (damage_journal, "fewer rows"),
        (damage_statistics, "statistics-.*: was changed or damaged"),
        (lambda path: next(path.glob("rows-*.bin")).unlink(), "is incomplete"),
        (lambda path: next(path.glob("statistics-*")).unlink(), "is incomplete"),
        (lambda path: (path / "manifest.json").unlink(), "is not there.*ocrmem encode"),
        (lambda path: (path / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda path: (path / "manifest.json").write_text("[]"), "not an object"),
        (change_manifest(version=99), "version: Input should be"),
        (change_manifest(format={"dtype": "int4"}), "format.weights_sha256: Field required"),
        (change_manifest(shape=[]), "shape: List should have"),
    ],
)
def test_a_damaged_store_is_refused_with_a_remedy(tmp_path: Path, damage: object, message: str) -> None:
    write(tmp_path, 2)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(MissingInputError, match=message) as caught:
        FeatureStore.open(tmp_path)
    assert "ocrmem encode" in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_names_its_page_and_writes_nothing(tmp_path: Path, bad: float) -> None:
    features = torch.stack([row(0), row(1)])
    features[1, 2, 0] = bad
    with FeatureWriter(tmp_path, row_format()) as writer:
        with pytest.raises(CheckFailed, match=f"page {name(1)}: features are not finite"):
            writer.append([name(0), name(1)], features)
        assert len(writer) == 0
    assert next(tmp_path.glob("rows-*.bin")).stat().st_size == 0


def test_a_value_too_large_for_the_stored_dtype_is_not_finite(tmp_path: Path) -> None:
    with (
        FeatureWriter(tmp_path, row_format("float16")) as writer,
        pytest.raises(CheckFailed, match="not finite in float16"),
    ):
        writer.append([name(0)], torch.full((1, TOKENS, WIDTH), 1e5))


@pytest.mark.parametrize(
    ("rows_left", "journal_left", "pages"),
    [
        ("batch and a half", "all", 2),  # rows are missing for the last line
        ("all", "torn", 2),  # the last line was cut within a hash
        ("all", "no newline", 2),
        ("more", "all", 4),  # rows that no line promises
        ("nothing", "all", 0),
        ("all", "nothing", 0),
    ],
)
def test_what_a_kill_left_is_cut_back_to_whole_batches(
    tmp_path: Path, rows_left: str, journal_left: str, pages: int
) -> None:
    write(tmp_path, 4)
    rows, journal = next(tmp_path.glob("rows-*.bin")), next(tmp_path.glob("rows-*.txt"))
    whole_rows, whole_journal = rows.read_bytes(), journal.read_bytes()
    cut = {"all": None, "nothing": 0, "batch and a half": len(whole_rows) * 3 // 4, "more": None}[rows_left]
    rows.write_bytes(whole_rows[:cut] + (b"half a row" if rows_left == "more" else b""))
    journal.write_bytes(whole_journal[: {"all": None, "nothing": 0, "torn": -30, "no newline": -1}[journal_left]])
    with FeatureWriter(tmp_path, row_format()) as writer:
        assert len(writer) == pages
        assert writer.missing(HashIndex.of(map(name, range(4)))).tolist() == list(range(pages, 4))
        assert rows.read_bytes() == whole_rows[: pages * TOKENS * WIDTH * 4]
    write(tmp_path, 4)
    assert (rows.read_bytes(), journal.read_bytes()) == (whole_rows, whole_journal)


def test_a_line_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    assert list(read_journal(path).pages) == []
    path.write_text(f"{name(1)} {name(11)} {name(2)} {name(12)}\n{name(3)} {name(13)}")
    assert list(read_journal(path).pages) == [name(1), name(2)]
    assert list(HashIndex(read_journal(path).digests)) == [name(11), name(12)]
    assert list(read_journal(path, 1).pages) == [name(1)]


def test_a_journal_of_something_else_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("these are\nno hashes\n")
    with pytest.raises(MissingInputError, match="not a list of page hashes"):
        read_journal(path)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "encode"), pytest.raises(BusyError, match="another `ocrmem encode`"):
        write(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, 1)
    assert len(FeatureStore.open(tmp_path)) == 1


@pytest.mark.parametrize("link", ["hard link", "symbolic link"])
@pytest.mark.parametrize("torn", [False, True], ids=["whole", "to be cut"])
def test_files_that_are_shared_with_a_cache_are_copied_before_they_change(
    tmp_path: Path, link: str, torn: bool
) -> None:
    store, cache = tmp_path / "features", tmp_path / "cache"
    cache.mkdir()
    pages = write(store, 2)
    if torn:
        with next(store.glob("rows-*.txt")).open("ab") as journal:
            journal.write(b"ab")
    for path in store.iterdir():
        cached = path.rename(cache / path.name)
        cached.chmod(0o444)
        path.hardlink_to(cached) if link == "hard link" else path.symlink_to(cached)
    before = {path.name: path.read_bytes() for path in cache.iterdir()}

    inodes = {path.name: path.stat().st_ino for path in store.glob("rows-*")}
    assert FeatureStore.open(store, pages=pages)
    if not torn:
        with FeatureWriter(store, row_format()) as writer:
            assert len(writer) == 2
        assert {path.name: path.stat().st_ino for path in store.glob("rows-*")} == inodes, "nothing to write, no copy"

    pages = write(store, 3)
    assert len(FeatureStore.open(store, pages=pages)) == 3
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == before
    assert not any(path.is_symlink() for path in store.glob("rows-*"))


def test_the_old_store_is_readable_until_the_new_one_is_published(tmp_path: Path) -> None:
    pages = write(tmp_path, 2)
    grown = FeatureWriter(tmp_path, row_format())
    with grown as writer:
        writer.append([name(7)], row(7)[None])
        assert len(FeatureStore.open(tmp_path, pages=pages)) == 2
    other = FeatureWriter(tmp_path, row_format(weights="other"))
    with other as writer:
        writer.append([name(0)], row(5)[None])
        assert torch.equal(FeatureStore.open(tmp_path).get(name(0)), row(0))
    write(tmp_path, 2, weights="other")
    assert torch.equal(FeatureStore.open(tmp_path).get(name(0)), row(5))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("pattern", ["rows-*.bin", "rows-*.txt", "statistics-*", "manifest.json"])
def test_no_bit_of_a_store_can_change(tmp_path: Path, pattern: str) -> None:
    write(tmp_path, 5)
    path = next(tmp_path.glob(pattern))
    content = path.read_bytes()
    for damaged in flipped(content, pattern):
        path.write_bytes(damaged)
        with pytest.raises(MissingInputError, match=r"`ocrmem encode`"):
            FeatureStore.open(tmp_path)
    path.write_bytes(content)
    FeatureStore.open(tmp_path)


def test_a_damaged_row_names_its_page(tmp_path: Path) -> None:
    pages = write(tmp_path, 5)
    rows = next(tmp_path.glob("rows-*.bin"))
    content = bytearray(rows.read_bytes())
    content[3 * TOKENS * WIDTH * 4] ^= 1
    rows.write_bytes(content)
    with pytest.raises(MissingInputError, match=f"features of page {pages[3]}"):
        FeatureStore.open(tmp_path)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that are compared with their hashes, as it happens."""
    rows: list[int] = []
    compare = feature_store.same

    def counted(journal: feature_store.Journal, row: int, content: bytes) -> bool:
        rows.append(row)
        return compare(journal, row, content)

    monkeypatch.setattr(feature_store, "same", counted)
    return rows


def test_rows_are_hashed_once_a_process_and_not_again_in_its_workers(tmp_path: Path, hashed: list[int]) -> None:
    write(tmp_path, 5)
    rows = next(tmp_path.glob("rows-*.bin"))
    os.utime(rows, (1_000_000_000, 1_000_000_000))
    store = FeatureStore.open(tmp_path)
    FeatureStore.open(tmp_path)
    pickle.loads(pickle.dumps(store))
    assert sorted(hashed) == list(range(5))
    os.utime(rows)
    pickle.loads(pickle.dumps(store))
    assert len(hashed) == 5
    FeatureStore.open(tmp_path)
    assert len(hashed) == 10


def test_the_processes_of_a_machine_share_the_rows(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 5)
    monkeypatch.setattr(feature_store, "_AT_A_TIME", 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank, expected in (("0", [0, 2, 4]), ("1", [1, 3])):
        monkeypatch.setenv("LOCAL_RANK", rank)
        hashed.clear()
        FeatureStore.open(tmp_path)
        assert sorted(hashed) == expected


def test_the_rows_of_an_earlier_store_are_kept_and_get_their_hashes(tmp_path: Path) -> None:
    pages = write(tmp_path, 4)
    journal = next(tmp_path.glob("rows-*.txt"))
    rows, whole = next(tmp_path.glob("rows-*.bin")).read_bytes(), journal.read_bytes()
    old = tmp_path / row_format().old_journal_name
    # As format 1 had it, with a batch whose rows a kill left out.
    lines = [" ".join(line.split()[::2]) for line in whole.decode().splitlines()]
    old.write_text("\n".join([*lines, name(9), ""]))
    journal.unlink()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for later in ("sha256", "journal_sha256", "statistics_sha256"):
        del manifest[later]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"version": 1}))
    with pytest.raises(MissingInputError, match=r"an earlier ocrmem wrote it.*`ocrmem encode`: it keeps the rows"):
        FeatureStore.open(tmp_path)
    with FeatureWriter(tmp_path, row_format()) as writer:
        assert writer.missing(HashIndex.of(pages)).tolist() == []
    assert write(tmp_path, 4) == pages
    assert (next(tmp_path.glob("rows-*.bin")).read_bytes(), journal.read_bytes()) == (rows, whole)
    assert not old.exists()
    assert len(FeatureStore.open(tmp_path, pages=pages)) == 4

"""A good dataset passes `check`; one broken on purpose fails by the name of the expectation that broke."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.chat import MODEL, RENDER, conversation, write_jsonl

from ocrmem.config import RunConfig
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.distributions import Distributions
from ocrmem.dataset.expectations import expectations
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.quality import check_dataset
from ocrmem.errors import CheckFailed, DataError, MissingInputError
from ocrmem.files import sha256_file, write_json
from ocrmem.json_files import with_sha256
from ocrmem.rendering import Page

Rows = list[dict[str, Any]]
BOUNDS = {"max_compression_ratio": 50.0}


@pytest.fixture(scope="module")
def good_dataset(base_directory, tmp_path_factory) -> Path:
    """Two training conversations and a held-out one; every test works on a copy."""
    root = tmp_path_factory.mktemp("good")
    write_jsonl(root / "data" / "train.jsonl", [conversation("t0", 4), conversation("t1", 3)])
    write_jsonl(root / "data" / "eval.jsonl", [conversation("e0", 4)])
    build_dataset(_config(root, base_directory))
    return root / "dataset"


def _config(root: Path, base: Path, **check: float) -> RunConfig:
    return RunConfig.from_dict(
        {
            "model": {**MODEL, "base_model_name": str(base)},
            "render": RENDER,
            "data": {"path": str(root / "data"), "workers": 1},
            "check": BOUNDS | check,
            "paths": {"dataset": str(root / "dataset"), "checks": str(root / "checks")},
        }
    )


@pytest.fixture
def copied(good_dataset, base_directory, tmp_path) -> RunConfig:
    shutil.copytree(good_dataset, tmp_path / "dataset")
    return _config(tmp_path, base_directory)


def rewrite(root: Path, kind: str, change: Callable[[Rows], Rows | None]) -> None:
    """Change the rows of a shard, and the manifest with it, so that only the expectation can notice."""
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    shard = next(shard for shard in manifest["shards"] if shard["path"].startswith(kind))
    path = root / shard["path"]
    table = pq.read_table(path, partitioning=None)
    rows = table.to_pylist()
    rows = change(rows) or rows
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    shard.update(rows=len(rows), bytes=path.stat().st_size, sha256=sha256_file(path))
    write_json(root / "manifest.json", with_sha256(manifest))


def failures(config: RunConfig) -> set[str]:
    """Names of the expectations that fail, as the error and result.json both say."""
    with pytest.raises(CheckFailed) as error:
        check_dataset(config)
    result = json.loads((Path(config.paths.checks) / "result.json").read_text(encoding="utf-8"))
    assert result["success"] is False
    names = [entry["name"] for entry in result["expectations"] if not entry["success"]]
    assert [problem.message.split()[0] for problem in error.value.problems] == names
    return set(names)


def set_last(**values: Any) -> Callable[[Rows], None]:
    """Change fields of the last row: the longest history of its file."""
    return lambda rows: rows[-1].update(values)


def duplicate_last(rows: Rows) -> Rows:
    return [*rows, rows[-1]]


def redraw_last(bits: bytes) -> Callable[[Rows], None]:
    """Other bits under a hash that is right for them; samples that name the old hash break too."""

    def change(rows: Rows) -> None:
        page = Page.from_bytes(bits, rows[-1]["size"], rows[-1]["atlas_version"])
        mask = page.ink_mask(64)
        packed = int("".join("1" if kept else "0" for kept in mask), 2).to_bytes(8)
        rows[-1].update(bits=bits, hash=page.hash, ink_mask=packed)

    return change


@dataclass(frozen=True)
class Case:
    """What is done to which kind of shard, and every expectation that fails then."""

    name: str
    kind: str
    change: Callable[[Rows], Rows | None]
    also: frozenset[str] = frozenset()


LOST_PAGE = frozenset({"sample_pages_resolve", "memory_tokens_match_pages"})
CASES = [
    Case("sample_ids_unique", "samples/train", duplicate_last),
    Case(
        "sample_pages_resolve",
        "samples/train",
        set_last(pages=["0" * 64]),
        frozenset({"memory_tokens_match_pages"}),
    ),
    Case(
        "memory_where_history_exceeds_threshold",
        "samples/train",
        set_last(history_tokens=200, pictured_tokens=900),
    ),
    Case(
        "memory_where_history_exceeds_threshold",
        "samples/eval",
        set_last(pages=[], memory_tokens=0),
    ),
    Case("memory_tokens_match_pages", "samples/train", set_last(memory_tokens=65)),
    Case("compression_ratio_in_bounds", "samples/train", set_last(history_tokens=90_000)),
    Case("compression_ratio_in_bounds", "samples/train", set_last(pictured_tokens=3)),
    Case("answers_not_empty", "samples/train", set_last(answer=" \n")),
    Case("answers_supervised", "samples/train", set_last(answer_tokens=1)),
    Case("sequences_fit", "samples/train", set_last(sequence_tokens=2049)),
    Case("no_conversation_in_train_and_held_out", "samples/eval", set_last(conversation_id="t0")),
    Case("page_hashes_unique", "pages", duplicate_last),
    Case("page_hash_matches_bits", "pages", set_last(atlas_version="another")),
    Case("page_size", "pages", set_last(size=1024)),
    Case(
        "page_bytes",
        "pages",
        set_last(bits=b"\0" * 100),
        frozenset({"page_hash_matches_bits", "kept_tokens", "ink_mask_matches_bits", "ink_share_in_bounds"}),
    ),
    Case("kept_tokens", "pages", redraw_last(bytes(32768)), LOST_PAGE | {"ink_share_in_bounds"}),
    Case(
        "ink_mask_matches_bits",
        "pages",
        set_last(ink_mask=b"\xff" * 8),
        frozenset({"memory_tokens_match_pages"}),
    ),
    Case("ink_share_in_bounds", "pages", redraw_last(b"\xff" * 32768), LOST_PAGE),
    Case("ink_share_in_bounds", "pages", redraw_last(b"\x80" + bytes(32767)), LOST_PAGE),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_broken_on_purpose_fails_by_name(copied, case):
    rewrite(Path(copied.paths.dataset), case.kind, case.change)
    assert failures(copied) == {case.name} | case.also


@pytest.mark.slow
def test_a_held_out_history_that_was_trained_on_under_another_id_fails_by_name(copied):
    root = Path(copied.paths.dataset)
    trained: Rows = []
    rewrite(root, "samples/train", lambda rows: trained.append(rows[-1]))
    rewrite(root, "samples/eval", lambda rows: [*rows, trained[0] | {"id": "x#0", "conversation_id": "x"}])
    assert failures(copied) == {"no_history_in_train_and_held_out"}


def test_a_shard_that_is_not_the_manifests_is_named_before_the_checks(copied):
    path = next((Path(copied.paths.dataset) / "pages").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=rf"{path.name}: was changed or damaged"):
        check_dataset(copied)


def test_every_expectation_is_broken_by_some_test(copied):
    manifest = MemoryDataset.open(copied.paths.dataset).manifest
    broken = {case.name for case in CASES}
    broken |= {"no_history_in_train_and_held_out"}
    assert {expectation.name for expectation in expectations(copied, manifest)} == broken


@pytest.mark.slow
def test_a_good_dataset_passes_and_leaves_result_and_page(copied):
    returned = check_dataset(copied)
    stored = json.loads(Path(returned["result"]).read_text(encoding="utf-8"))
    assert stored["success"] is True
    assert {entry["name"] for entry in stored["expectations"]} == {entry["name"] for entry in returned["expectations"]}
    assert all(entry["checked"] > 0 and entry["failed"] == 0 for entry in stored["expectations"])
    assert 1 <= stored["figures"]["kept_tokens"]["min"] <= stored["figures"]["kept_tokens"]["max"] <= 64
    assert Path(copied.paths.checks) / stored["page"] == Path(returned["page"])
    assert "17 expectations hold" in returned["summary"][0]
    assert {path.name for path in Path(copied.paths.checks).iterdir()} == {"result.json", "index.html"}
    page = CheckPage(copied)
    assert "All 17 expectations hold over 11 samples and" in page.text
    assert all(entry["meaning"] in page.text and entry["name"] in page.text for entry in stored["expectations"])
    assert page.tags.count("svg") == 6
    assert "fails" not in page.text


@pytest.mark.slow
def test_bounds_come_from_the_configuration_and_the_problem_says_what_to_do(copied, tmp_path, base_directory):
    strict = _config(tmp_path, base_directory, max_compression_ratio=10.0)
    with pytest.raises(CheckFailed) as error:
        check_dataset(strict)
    (problem,) = error.value.problems
    assert problem.place.endswith("samples.compression_ratio")
    assert "compression_ratio_in_bounds" in problem.message
    assert "t0#1 (compression_ratio " in problem.message
    assert "check.max_compression_ratio" in problem.remedy
    page = CheckPage(strict)
    assert "1 of 17 expectations does not hold" in page.text
    assert problem.remedy in page.text
    assert "asked 0.5 to 10 found" in page.text
    assert "t0#1 , stored in samples/train-00000.parquet[1] ; compression ratio" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_samples_that_fail_name_their_lines_where_the_data_are_those_of_the_dataset(
    good_dataset, copied, tmp_path, base_directory, changed
):
    shutil.copytree(good_dataset.parent / "data", tmp_path / "data")
    if changed:
        with (tmp_path / "data" / "eval.jsonl").open("a", encoding="utf-8") as handle:
            handle.write("\n")
    with pytest.raises(CheckFailed) as error:
        check_dataset(_config(tmp_path, base_directory, max_compression_ratio=10.0))
    line = f"{tmp_path}/data/train.jsonl:1"
    assert (line in error.value.problems[0].message) is not changed
    assert (line in CheckPage(copied).text) is not changed


@pytest.mark.slow
def test_ids_reach_the_page_and_the_result_as_text_only(copied):
    """Great Expectations takes $ for a placeholder in what it renders; what it judges must come back as it went in."""
    hostile = '<script>alert("x")</script> $id ${id} %s {0} {{ 7 * 7 }} 🙂'
    root = Path(copied.paths.dataset)
    rewrite(root, "samples/train", set_last(id=hostile))
    rewrite(root, "samples/train", duplicate_last)
    with pytest.raises(CheckFailed) as error:
        check_dataset(copied)
    assert hostile in error.value.problems[0].message
    page = CheckPage(copied)
    assert hostile in page.text
    assert "script" not in page.tags
    assert not re.search(r"https?://|@import|url\(|src=", page.html)
    assert "default-src 'none'" in page.html


class CheckPage(HTMLParser):
    """What a browser makes of the page: its tags, and its text with single spaces."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.html = (Path(config.paths.checks) / "index.html").read_text(encoding="utf-8")
        self.tags: list[str] = []
        self._texts: list[str] = []
        self.feed(self.html)
        # A long name may be broken in the page at its underscores.
        self.text = " ".join(" ".join(self._texts).split()).replace("_ ", "_")

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self._texts.append(data)


@pytest.mark.parametrize(
    ("values", "edges", "counts", "single"),
    [
        ([1, 2, 2], [1, 2, 3], [1, 2], True),
        ([5], [5, 6], [1], True),
        (range(13), [0, 2, 4, 6, 8, 10, 12, 14], [2] * 6 + [1], False),
        ([0.5], None, None, False),
        ([0.0, 0.25, 1.0], None, None, False),
    ],
)
def test_every_value_lies_in_a_bin(values, edges, counts, single):
    seen = Distributions([])
    seen.add("samples", {"history_tokens": [*values, None]})
    bins = seen.bins("history_tokens")
    assert bins is not None
    assert sum(bins["counts"]) == len(values)
    assert len(bins["edges"]) == len(bins["counts"]) + 1 <= 13
    assert bins["single"] is single
    assert edges is None or (bins["edges"], bins["counts"]) == (edges, counts)
    assert seen.bins("page_count") is None


def test_no_dataset_names_the_verb_to_run(tmp_path, base_directory):
    with pytest.raises(MissingInputError, match="ocrmem render"):
        check_dataset(_config(tmp_path, base_directory))

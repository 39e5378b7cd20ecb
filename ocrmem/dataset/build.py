"""The verb `render`: conversations to samples and pages in parquet shards.

Shards are made in parallel, each complete or not there; then pages that several shards share are kept in the
first of them only, and the dataset takes its place in one rename. The bytes depend on the data and the
settings alone: not on the number of processes, nor on how often the work was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from ocrmem.config import RunConfig
from ocrmem.console import note, progress_bar
from ocrmem.conversations import SPLITS, StoredConversations, locate_conversations
from ocrmem.dataset.hash_index import first_seen
from ocrmem.dataset.manifest import dataset_config, source_identity, tokenizer_identity
from ocrmem.dataset.render_workers import Job, run_jobs, worker_count
from ocrmem.dataset.schema import SCHEMA_VERSION
from ocrmem.dataset.shards import copy_pages, describe, page_digests, place_copy
from ocrmem.dataset.unfinished_shards import Counts, UnfinishedShards
from ocrmem.errors import DataError, Problem
from ocrmem.facts import MANIFEST
from ocrmem.files import check_replaceable, locking, replacing_directory, sha256_code, sha256_json, write_json
from ocrmem.json_files import PartRecord, Shard, with_sha256
from ocrmem.rendering import Geometry, load_atlas
from ocrmem.tokens import load_tokenizer
from ocrmem.verdicts import dataset_warnings, warning_lines

REJECTS = "rejects.jsonl"
LEFT_OUT = "left_out.jsonl"
# Of ocrmem's own files, those that decide what a part holds: parts of another version are not used.
_DECIDING = ("facts.py", "tokens.py", "conversations", "families", "rendering", "dataset")


class RenderResult(TypedDict):
    """Result of `build_dataset`: the manifest's counts (see `Counts`), ratio and places.

    ``compression_ratio`` is text tokens shown per memory token; ``rejects`` is a path, or None without rejects.
    """

    dataset: str
    conversations: int
    samples: dict[str, int]
    with_memory: dict[str, int]
    pages: int
    unique_pages: int
    history_tokens: int
    memory_tokens: int
    dropped_tokens: int
    dropped_pages: int
    left_out: int
    content_tokens: int
    unknown_tokens: int
    longest_history: int
    longest_sequence: int
    compression_ratio: float
    rejects: str | None
    warnings: list[str]
    summary: list[str]


@locking("render", lambda config: config.paths.dataset)
def build_dataset(config: RunConfig) -> RenderResult:
    """Write ``paths.dataset``: samples and pages in parquet shards, and manifest.json.

    An interrupted run is resumed from its complete shards, if data, settings and ocrmem's code are still the same.
    A dataset of other settings is replaced.

    Args:
        config: sections model (thresholds and tokenizer), render, data and paths are used.

    Raises:
        ConfigError: page sizes that do not fit each other, or a place that cannot be replaced; BusyError while another
            process renders to it.
        DataError: bad lines of data; samples whose memory and answer exceed max_seq_length, all of them; or
            data of which no sample gets memory.
    """
    Geometry.of(config.render)
    directory = Path(config.paths.dataset)
    check_replaceable(directory)
    tokenizer = load_tokenizer(config)
    identity = {
        "config": dataset_config(config),
        "source": source_identity(config),
        "tokenizer": tokenizer_identity(config, tokenizer),
        "atlas": load_atlas(config.render.atlas).version,
    }
    parts = UnfinishedShards(
        directory.with_name(f".{directory.name}.parts"), sha256_json([identity, sha256_code(*_DECIDING)])
    )
    rejects = parts.directory / REJECTS if config.data.skip_bad else None
    conversations = locate_conversations(config, rejects)

    size = config.data.shard_conversations
    shards = [range(start, min(start + size, len(conversations))) for start in range(0, len(conversations), size)]
    records = _make(config, parts, conversations, shards)
    counts = Counts()
    for record in records:
        counts.add(Counts(**record["counts"]))
    _require_memory(config, counts)

    with replacing_directory(directory) as target:
        unique_pages, shards_written = _assemble(parts, records, target)
        manifest: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "counts": {"conversations": len(conversations), **vars(counts), "unique_pages": unique_pages},
            **identity,
            "shards": shards_written,
        }
        if rejects is not None:
            place_copy(rejects, target / REJECTS)
        write_json(target / MANIFEST, with_sha256(manifest))
    parts.remove()
    return _result(directory, manifest["counts"])


def _make(
    config: RunConfig, parts: UnfinishedShards, conversations: StoredConversations, shards: Sequence[range]
) -> list[PartRecord]:
    """Return the records of all shards, made now or found complete.

    Args:
        shards: which conversations each shard holds.
    """
    missing = [index for index in range(len(shards)) if not parts.complete(index)]
    if len(missing) < len(shards):
        note(f"resuming: {len(shards) - len(missing)} of {len(shards)} shards are already complete")
    problems: dict[int, list[Problem]] = {}
    total = sum(map(len, shards))
    with progress_bar("rendering", total) as bar:
        bar.advance(total - sum(len(shards[index]) for index in missing))
        # Read one shard at a time, as processes ask for them: the data may be larger than the memory.
        jobs = (Job(parts.directory, index, conversations.read(shards[index])) for index in missing)
        size = sum(conversations.bytes_of(shards[index]) for index in missing)
        for job, found in run_jobs(config, jobs, worker_count(config.data.workers, len(missing), size)):
            bar.advance(len(job.conversations))
            if found:
                problems[job.index] = found
    if problems and not config.data.skip_bad:
        raise DataError([problem for index in sorted(problems) for problem in problems[index]])
    return [parts.record(index) for index in range(len(shards))]


def _assemble(parts: UnfinishedShards, records: Sequence[PartRecord], target: Path) -> tuple[int, list[Shard]]:
    """Move the parts to their places, every page once.

    Returns:
        The number of different pages, and the manifest's line for every shard.
    """
    (target / "pages").mkdir()
    (target / "samples").mkdir()
    files = [
        parts.directory / file["path"] for record in records for file in record["files"] if file["kind"] == "pages"
    ]
    digests = [page_digests(path) for path in files]
    new = first_seen(np.concatenate(digests)) if digests else np.empty(0, bool)
    rest = iter(np.split(new, np.cumsum([len(part) for part in digests])[:-1])) if digests else iter(())
    shards: list[Shard] = []
    left_out: list[dict[str, str]] = []
    for index, record in enumerate(records):
        left_out += record["left_out"]
        for file in record["files"]:
            source = parts.directory / file["path"]
            if file["kind"] == "pages":
                path = target / "pages" / f"pages-{index:05d}.parquet"
                rows = copy_pages(source, path, next(rest))
            else:
                path = target / "samples" / f"{file['kind']}-{index:05d}.parquet"
                rows = file["rows"]
                place_copy(source, path)
            if rows:
                shards.append(describe(path, target, rows))
    if left_out:
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in left_out)
        (target / LEFT_OUT).write_text("".join(lines), encoding="utf-8")
    return int(new.sum()), sorted(shards, key=lambda shard: shard["path"])


def _require_memory(config: RunConfig, counts: Counts) -> None:
    """Refuse a dataset that could train nothing."""
    some = sum(counts.with_memory.values()) > 0
    if counts.with_memory.get("train") or (some and not counts.samples.get("train")):
        return
    which = "training sample" if some else "sample"
    threshold = config.model.context_threshold
    longest = f"the longest history has {counts.longest_history} tokens"
    if not counts.longest_history:
        lower = ", or lower data.recent_turns" if config.data.recent_turns > 1 else ""
        remedy = f"Bring conversations of several turns{lower}"
    elif counts.longest_history <= threshold:
        remedy = f"Set model.context_threshold below {counts.longest_history}, or bring longer conversations"
    else:
        remedy = "Look at the samples that were left out, or lower model.context_threshold"
    raise DataError.of(
        "model.context_threshold",
        f"no {which} gets memory: a history needs more than {threshold} tokens, {longest}",
        remedy,
    )


def _result(directory: Path, counts: dict[str, Any]) -> RenderResult:
    ratio = counts["history_tokens"] / counts["memory_tokens"]
    splits = [
        f"{counts['samples'][split]:,} {split} samples ({counts['with_memory'][split]:,} with memory)"
        for split in SPLITS
        if counts["samples"].get(split)
    ]
    summary = [
        f"{counts['conversations']:,} conversations: {', '.join(splits)}",
        f"{counts['pages']:,} pages in use, {counts['unique_pages']:,} different",
        f"{counts['history_tokens']:,} text tokens became {counts['memory_tokens']:,} memory tokens ({ratio:.2f} to 1)",
    ]
    if counts["left_out"]:
        summary.append(f"{counts['left_out']:,} samples left out; see {directory / LEFT_OUT}")
    rejects = directory / REJECTS
    if rejects.exists() and rejects.stat().st_size:
        summary.append(f"bad lines left out; see {rejects}")
    summary += warning_lines(warnings := dataset_warnings(counts))
    summary.append(f"dataset: {directory}")
    result = {
        "dataset": str(directory),
        **counts,
        "compression_ratio": round(ratio, 4),
        "rejects": str(rejects) if rejects.exists() else None,
        "warnings": warnings,
        "summary": summary,
    }
    return cast(RenderResult, result)

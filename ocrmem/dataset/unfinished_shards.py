"""Unfinished shards beside the dataset, so that an interrupted `render` can resume.

The folder lies next to the dataset (DVC empties a stage's outputs before it runs). A part counts as complete
when its record is there, was written for the same inputs, and its files have the recorded hashes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ocrmem.conversations import SPLITS, Conversation
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.schema import PageRow, Sample
from ocrmem.dataset.shards import ShardWriter, describe, page_writer, sample_writer
from ocrmem.errors import OcrMemError, Problem
from ocrmem.families import with_marks
from ocrmem.files import sha256_file, write_json, write_text
from ocrmem.json_files import PartRecord, read_json, with_sha256


@dataclass
class Counts:
    """Counts over samples; summed over shards for the manifest.

    Attributes:
        samples: by split.
        with_memory: by split.
        pages: references from samples to pages.
        history_tokens: text tokens that the pages show, over samples with memory.
        memory_tokens: tokens that memory takes in the sequences, its marks included.
        dropped_tokens: content tokens left out to fit max_seq_length.
        dropped_pages: oldest pages left out.
        left_out: samples that do not fit and were left out (data.skip_bad).
        content_tokens: tokens of all messages' content.
        unknown_tokens: of these, the ones that the tokenizer does not know.
        longest_history: tokens; the largest of all samples, with memory or not.
        longest_sequence: tokens.
    """

    samples: dict[str, int] = field(default_factory=dict)
    with_memory: dict[str, int] = field(default_factory=dict)
    pages: int = 0
    history_tokens: int = 0
    memory_tokens: int = 0
    dropped_tokens: int = 0
    dropped_pages: int = 0
    left_out: int = 0
    content_tokens: int = 0
    unknown_tokens: int = 0
    longest_history: int = 0
    longest_sequence: int = 0

    def add_sample(self, sample: Sample) -> None:
        self.samples[sample.split] = self.samples.get(sample.split, 0) + 1
        self.with_memory.setdefault(sample.split, 0)
        self.dropped_tokens += sample.dropped_tokens
        self.longest_sequence = max(self.longest_sequence, sample.sequence_tokens)
        if not sample.has_memory:
            return
        self.with_memory[sample.split] += 1
        self.pages += len(sample.pages)
        self.dropped_pages += sample.dropped_pages
        self.history_tokens += sample.text_tokens
        self.memory_tokens += with_marks(sample.memory_tokens)

    def add(self, other: Counts) -> None:
        for name in ("samples", "with_memory"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for split, number in theirs.items():
                mine[split] = mine.get(split, 0) + number
        for name, number in vars(other).items():
            if name.startswith("longest"):
                setattr(self, name, max(getattr(self, name), number))
            elif isinstance(number, int):
                setattr(self, name, getattr(self, name) + number)


class UnfinishedShards:
    """The folder of unfinished shards.

    Args:
        directory: the folder.
        key: hash of everything that decides the shards' bytes; parts made for another key are removed.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory = directory
        marker = directory / "key.json"
        if not marker.is_file() or marker.read_bytes() != key.encode("ascii"):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            # A run that was cut short leaves this folder in somebody's working tree.
            write_text(directory / ".gitignore", "*\n")
            write_text(marker, key)
        for leftover in directory.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def record(self, index: int) -> PartRecord:
        """Return what `write_part` recorded."""
        return read_json(self.directory / _record_name(index), PartRecord, made_by="render")

    def complete(self, index: int) -> bool:
        """Return whether a part has its record and all its files, byte for byte."""
        try:
            record = self.record(index)
        except OcrMemError:
            return False
        paths = [(self.directory / file["path"], file["sha256"]) for file in record["files"]]
        return all(path.is_file() and sha256_file(path) == digest for path, digest in paths)

    def remove(self) -> None:
        """Delete the folder, once the dataset is complete."""
        shutil.rmtree(self.directory, ignore_errors=True)


def write_part(directory: Path, index: int, conversations: Sequence[Conversation], maker: SampleMaker) -> list[Problem]:
    """Write one part and then, when all of it is on disk, its record.

    Args:
        directory: of `UnfinishedShards`.
        index: of the shard.
        conversations: those of the shard, in order.
        maker: makes the samples.

    Returns:
        Problems of samples that cannot be made. Unless data.skip_bad is set, a part with problems gets no
        record: it is not complete.
    """
    counts = Counts()
    problems: list[Problem] = []
    seen: set[str] = set()
    with ExitStack() as stack:
        pages: ShardWriter[PageRow] = stack.enter_context(page_writer(directory / f"{index:05d}-pages.parquet"))
        samples: dict[str, ShardWriter[Sample]] = {
            split: stack.enter_context(sample_writer(directory / f"{index:05d}-{split}.parquet")) for split in SPLITS
        }
        for conversation in conversations:
            made = maker.make(conversation)
            problems += made.problems
            counts.longest_history = max(counts.longest_history, made.longest_history)
            counts.content_tokens += made.content_tokens
            counts.unknown_tokens += made.unknown_tokens
            for page in made.pages:
                if page.hash not in seen:
                    seen.add(page.hash)
                    pages.add(page)
            for sample in made.samples:
                counts.add_sample(sample)
                samples[sample.split].add(sample)
    if problems and not maker.config.data.skip_bad:
        return problems
    counts.left_out = len(problems)
    writers: dict[str, ShardWriter] = {"pages": pages, **samples}
    files = [
        {"kind": kind, **describe(writer.path, directory, writer.rows)}
        for kind, writer in writers.items()
        if writer.rows
    ]
    left_out = [{"place": problem.place, "reason": problem.message} for problem in problems]
    record = {"files": files, "counts": vars(counts), "left_out": left_out}
    write_json(directory / _record_name(index), with_sha256(record))
    return problems


def _record_name(index: int) -> str:
    return f"{index:05d}.json"

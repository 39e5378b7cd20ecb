"""The tokens of a run: from the dataset where it was made with these settings, else upper bounds.

A batch is padded to its longest row, so what is computed on is rows x longest, not the sum of the lengths. For
random batches the mean of the longest of B rows follows from the sorted lengths: the i-th of n is the longest
with probability (i/n)^B - ((i-1)/n)^B. Batches of like length are taken as B neighbours of the sorted lengths each.
With ``train.packing`` nothing is padded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ocrmem.config import RunConfig
from ocrmem.config.rules.pages import TEXT_TOKENS
from ocrmem.dataset.manifest import dataset_config, read_manifest, shards_of
from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.facts import LOGITS_AT_ONCE, MANIFEST, tokens_per_page
from ocrmem.families import MARK_TOKENS, with_marks
from ocrmem.json_files import DatasetManifest

ASSUMED_ANSWER = 256  # tokens
ALIGN, READING = "align", ("transcribe", "continue")  # objectives that are not of answers
DISTIL = "distil"  # compares logits with the teacher's


@dataclass(frozen=True)
class BatchShape:
    """What one process computes at once."""

    rows: int  # samples; with train.packing they share one row
    length: float  # positions of a sample, padding and memory included
    square_length: float  # mean of ``length`` squared, for attention
    memory: float  # vision tokens of the batch
    answers: float  # supervised positions of the batch
    padded: bool  # whether rows differ in length, so that attention needs a mask
    whole_logits: bool = False  # whether those of all supervised positions are needed at once

    @property
    def logits(self) -> float:
        """Positions whose logits are in memory at once."""
        return self.answers if self.whole_logits else min(self.answers, LOGITS_AT_ONCE)

    @property
    def positions(self) -> float:
        """Positions that are computed."""
        return self.rows * self.length


@dataclass(frozen=True)
class Workload:
    """The batches of a run."""

    largest: BatchShape  # that memory must hold
    mean: BatchShape  # that time is reckoned with
    used: float  # mean tokens of a row without padding
    pages: int | None  # different pages of the dataset; None without one
    answer_source: str  # where the answers' lengths come from, for a reader
    source: str  # where all other lengths come from
    notes: tuple[str, ...] = ()  # what else the reader should know


def workload(config: RunConfig, answer_tokens: int | None = None, objective: str = "answer") -> Workload:
    """Return the batches that the settings, and the dataset if there is one, lead to.

    Args:
        config: sections model, render and train; ``paths.dataset`` is read where it was made with these settings.
        answer_tokens: supervised tokens a sample, instead of the dataset's or the assumed ones.
        objective: of ``train.stages``. `align` has vision tokens alone, `transcribe` and `continue` as many answer
            tokens as there is text on the pages.

    Raises:
        DataError, MissingInputError: the dataset is broken.
    """
    directory = Path(config.paths.dataset)
    if not os.path.lexists(directory / MANIFEST):
        return _bounds(config, answer_tokens, (), objective)
    manifest = read_manifest(directory)
    if manifest["config"] != dataset_config(config):
        note = f"{directory} was made with other settings, so its lengths are not used: run `ocrmem render` again"
        return _bounds(config, answer_tokens, (note,), objective)
    lengths = _of_objective(objective, config.model.max_seq_length, *_lengths(directory, manifest))
    if not len(lengths[0]):
        note = f"{directory} has no training samples for {objective}, so upper bounds are used"
        return _bounds(config, answer_tokens, (note,), objective)
    if objective in READING:
        answer_tokens = None
    return _from_dataset(config, lengths, manifest["counts"]["unique_pages"], answer_tokens, objective)


def _of_objective(
    objective: str, longest: int, sequence: np.ndarray, memory: np.ndarray, answers: np.ndarray, text: np.ndarray
) -> list[np.ndarray]:
    """Return tokens of sequence, memory and answer of the samples that an objective uses."""
    if objective == "answer":
        return [sequence, memory, answers]
    sequence, memory, answers, text = (part[memory > 0] for part in (sequence, memory, answers, text))
    if objective == ALIGN:
        return [np.zeros_like(sequence), memory, np.zeros_like(answers)]
    if objective in READING:
        frame = MARK_TOKENS + TEXT_TOKENS
        answers = np.clip(text, 1, np.maximum(longest - frame - memory, 1))
        return [frame + memory + answers, memory, answers]
    return [sequence, memory, answers]


def _bounds(config: RunConfig, answer_tokens: int | None, notes: tuple[str, ...], objective: str) -> Workload:
    rows, longest = config.train.per_device_batch_size, config.model.max_seq_length
    tokens = tokens_per_page(config.render.page_size, config.render.token_size)
    memory = config.render.max_pages * tokens
    room = max(1, longest - with_marks(memory) - TEXT_TOKENS)
    answers = room if objective in READING else answer_tokens or min(ASSUMED_ANSWER, room)
    if objective == ALIGN:
        longest = answers = 0
    padded = rows > 1 and not config.train.packing
    batch = BatchShape(rows, longest, longest**2, rows * memory, rows * answers, padded, objective == DISTIL)
    return Workload(
        largest=batch,
        mean=batch,
        used=longest,
        pages=None,
        answer_source="--answer-tokens" if answer_tokens else "assumed; there is no dataset yet",
        source="upper bound: every row has model.max_seq_length tokens and render.max_pages full pages",
        notes=notes,
    )


def _from_dataset(
    config: RunConfig, lengths: list[np.ndarray], pages: int, answer_tokens: int | None, objective: str
) -> Workload:
    sequence, memory, answers = lengths
    if answer_tokens is not None:
        answers = np.full_like(answers, answer_tokens)
    rows, longest = config.train.per_device_batch_size, int(sequence.max())
    padded = rows > 1 and not config.train.packing
    whole = objective == DISTIL
    largest = BatchShape(rows, longest, longest**2, rows * int(memory.max()), rows * int(answers.max()), padded, whole)
    mean_longest = longest_of_neighbours if config.train.group_by_length else longest_of
    at_once = rows if padded else 1  # samples that are as long as the longest of them
    mean = BatchShape(
        rows,
        mean_longest(sequence, at_once),
        mean_longest(sequence.astype(float) ** 2, at_once),
        rows * float(memory.mean()),
        rows * float(answers.mean()),
        padded and longest > int(sequence.min()),
        whole,
    )
    return Workload(
        largest,
        mean,
        used=float(sequence.mean()),
        pages=pages,
        answer_source="--answer-tokens" if answer_tokens else f"{len(sequence):,} training samples",
        source=f"{len(sequence):,} training samples; time with means, memory with the longest",
    )


def longest_of(values: np.ndarray, count: int) -> float:
    """Return the expected maximum of ``count`` values drawn from ``values`` at random, with replacement."""
    ordered = np.sort(values)
    below = (np.arange(len(ordered) + 1) / len(ordered)) ** count
    return float((ordered * np.diff(below)).sum())


def longest_of_neighbours(values: np.ndarray, count: int) -> float:
    """Return the mean of the longest of each ``count`` neighbours by size; the last few may be fewer."""
    ordered = np.sort(values)
    return float(np.maximum.reduceat(ordered, np.arange(0, len(ordered), count)).mean())


def _lengths(directory: Path, manifest: DatasetManifest) -> list[np.ndarray]:
    """Read the training samples' tokens, those of memory, of answers and of the pages' text, and nothing else."""
    samples = StoredSamples(directory, shards_of(manifest, "samples/train"))
    names = ("sequence_tokens", "memory_tokens", "answer_tokens", "history_tokens", "pictured_tokens")
    *found, history, pictured = (samples.column(name) for name in names)
    return [*found, np.where(pictured < 0, history, pictured)]

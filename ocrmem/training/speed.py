"""How fast a training computes: tokens a second, share of the GPU's peak rate (MFU), GPU memory at its peak."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch

from ocrmem.config import RunConfig
from ocrmem.errors import ModelError
from ocrmem.facts import IGNORED
from ocrmem.planning.flops import flops
from ocrmem.planning.gpus import gpu_of_device
from ocrmem.planning.memory_need import ModelFacts
from ocrmem.planning.workload import BatchShape


class Speed(TypedDict):
    """What one process did in a while.

    Attributes:
        tokens_per_second: without padding; vision tokens where no language model runs (`align`).
        mfu: operations that the mathematics asks for, of what the device could do at its peak; None where one of the
            two is not known.
        peak_memory_bytes: most that tensors took on its GPU since it started; None on a CPU.
    """

    tokens_per_second: float
    mfu: float | None
    peak_memory_bytes: int | None


@dataclass
class _Work:
    """Sums over batches; those that a GPU counts stay there until they are read."""

    tokens: Any = 0
    answers: Any = 0
    memory: int = 0
    rows: int = 0
    positions: int = 0
    squares: int = 0  # of the rows' lengths

    def add(self, batch: Mapping[str, Any]) -> None:
        features = batch.get("memory_features")
        vision = len(features) if features is not None else 0
        self.memory += vision
        if "input_ids" not in batch:
            self.tokens += vision
            return
        rows, length = batch["input_ids"].shape
        mask = batch.get("attention_mask")
        self.tokens += rows * length if mask is None else mask.sum()
        self.answers += (batch["labels"] != IGNORED).sum() if "labels" in batch else 0
        self.rows += rows
        self.positions += rows * length
        self.squares += rows * length**2

    def shape(self) -> BatchShape:
        """Return all of it as one batch: operations are linear in these sums."""
        rows = max(self.rows, 1)
        mean, square = self.positions / rows, self.squares / rows
        return BatchShape(self.rows, mean, square, self.memory, float(self.answers), padded=True, whole_logits=True)


@dataclass
class SpeedMeter:
    """Measures one process.

    Args:
        operations: of a batch, forward and backward; None: not known.
        peak: operations a second of its device; None: not known.
    """

    operations: Callable[[BatchShape], float] | None = None
    peak: float | None = None
    _open: _Work = field(default_factory=_Work)
    _since: float | None = None  # what comes before the first batch, such as hashing the model, is no training
    _seconds: float = 0.0  # of all that was read, and its tokens and operations
    _tokens: float = 0.0
    _done: float = 0.0

    @classmethod
    def of(cls, config: RunConfig, device: torch.device) -> SpeedMeter:
        """Return the meter of a run, with MFU where the GPU's peak rate and the model's shapes are known."""
        gpu = gpu_of_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if gpu is None:
            return cls()
        try:
            facts = ModelFacts.of(config)
        except ModelError:  # of a family that is not registered
            return cls()
        checkpointing = config.train.activation_checkpointing
        return cls(
            lambda batch: flops(facts.shape, facts.proj, batch, checkpointing=checkpointing, lora=facts.lora).model,
            gpu.peak_flops(config.model.precision),
        )

    def saw(self, batch: Mapping[str, Any]) -> None:
        """Count a batch that is about to be computed on."""
        if self._since is None:
            self._since = time.monotonic()
        self._open.add(batch)

    def read(self) -> Speed:
        """Return the speed since the last reading."""
        now = time.monotonic()
        seconds, tokens = now - (now if self._since is None else self._since), float(self._open.tokens)
        done = self.operations(self._open.shape()) if self.operations else 0.0
        self._open, self._since = _Work(), now
        self._seconds, self._tokens, self._done = self._seconds + seconds, self._tokens + tokens, self._done + done
        return self._speed(seconds, tokens, done)

    def overall(self) -> Speed:
        """Return the speed over all readings."""
        return self._speed(self._seconds, self._tokens, self._done)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time that the block takes; what it does is not training."""
        before = time.monotonic()
        yield
        if self._since is not None:
            self._since += time.monotonic() - before

    def _speed(self, seconds: float, tokens: float, done: float) -> Speed:
        rate = 1 / seconds if seconds > 0 else 0.0
        return {
            "tokens_per_second": tokens * rate,
            "mfu": done * rate / self.peak if self.operations and self.peak else None,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        }


def logged_speed(speeds: list[Speed]) -> dict[str, float]:
    """Return the figures of all processes as a log has them: together, and with several also by rank.

    ``tokens_per_second`` is a sum, ``mfu`` a mean, ``peak_memory_gib`` the largest.
    """
    together = _as_logged(
        {
            "tokens_per_second": sum(speed["tokens_per_second"] for speed in speeds),
            "mfu": _over(speeds, "mfu", lambda values: sum(values) / len(values)),
            "peak_memory_bytes": _over(speeds, "peak_memory_bytes", max),
        }
    )
    if len(speeds) == 1:
        return together
    ranks = {f"rank{rank}/{name}": value for rank, one in enumerate(speeds) for name, value in _as_logged(one).items()}
    return together | ranks


def _over(speeds: list[Speed], name: str, combine: Callable[[list[Any]], Any]) -> Any:
    known = [value for speed in speeds if (value := speed[name]) is not None]  # type: ignore[literal-required]
    return combine(known) if known else None


def _as_logged(speed: Speed) -> dict[str, float]:
    logged = {"tokens_per_second": speed["tokens_per_second"]}
    if speed["mfu"] is not None:
        logged["mfu"] = speed["mfu"]
    if speed["peak_memory_bytes"] is not None:
        logged["peak_memory_gib"] = speed["peak_memory_bytes"] / 2**30
    return logged

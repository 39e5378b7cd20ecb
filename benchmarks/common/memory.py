"""Peak memory of tensors, counted: the same on any machine, and on the meta device too."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_M_MMAP_THRESHOLD = -3  # of malloc.h


class PeakTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is active and still alive.

    What an operation uses inside itself and frees again is not seen.

    Attributes:
        peak: the most bytes at one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self._alive:
                    self._alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self._freed, storage._cdata)
                    self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        return result

    def _freed(self, address: int) -> None:
        self._now -= self._alive.pop(address, 0)

    def __enter__(self) -> Self:
        super().__enter__()
        return self


class PeakProcess:
    """How far the process's resident memory rises above where it was; on Linux, which can reset its peak.

    Attributes:
        peak: bytes; None where the system does not report it.
    """

    peak: int | None = None

    def __enter__(self) -> Self:
        _return_what_is_freed()
        self._before = _resident("VmRSS") if _reset() else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self.peak = _resident("VmHWM") - self._before

    def require_mb(self) -> float:
        """Return the peak in megabytes; end the script where there is none."""
        if self.peak is None:
            raise SystemExit("The peak of a process's memory is not available on this system.")
        return self.peak / 1e6


def in_own_process(script: str, *arguments: str) -> Any:
    """What a benchmark that is called with ``--child ARGUMENTS`` prints last, as JSON."""
    command = [sys.executable, script, "--child", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _return_what_is_freed() -> None:
    """Let glibc give large blocks back at once: what it kept for later would hide the next rise."""
    if sys.platform == "linux":
        malloc = ctypes.CDLL(None)
        if hasattr(malloc, "mallopt"):
            malloc.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
            malloc.malloc_trim(0)


def _reset() -> bool:
    if sys.platform != "linux":
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: sets VmHWM to the present VmRSS
    except OSError:
        return False
    return True


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def mb(count: float | None) -> str:
    """Bytes as megabytes (10^6)."""
    return "-" if count is None else f"{count / 1e6:,.0f}"

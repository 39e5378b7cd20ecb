"""The process's surroundings: variables set for a while, cores, this user's cache, and what torch needs to compile."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which


def available_cores() -> int:
    """Return how many cores this process may use: a container or `taskset` may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process within the block, and restore or remove them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def user_cache() -> Path:
    """Return where ocrmem keeps what this user can do without."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocrmem"


def missing_to_compile(*, on_gpu: bool) -> str:
    """Return what torch.compile needs and this machine has not, for a reader; empty where nothing is missing."""
    if on_gpu and find_spec("triton") is None:
        return "Triton is not installed"
    chosen, *others = ("CC", "gcc", "clang") if on_gpu else ("CXX", "g++", "clang++")
    if not any(which(name) for name in (os.environ.get(chosen), *others) if name):
        return "there is no compiler of C" if on_gpu else "there is no compiler of C++"
    headers = Path(sysconfig.get_path("include"))
    return "" if (headers / "Python.h").is_file() else f"Python's headers are not in {headers}"


def keep_compiled() -> Path:
    """Let torch keep what it compiles in this user's cache, unless the environment names a place; return the place."""
    return Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "compiled")))

"""Counts what a process does to the files of its working directory, and kills it at a chosen moment.

A moment is an opening to write, a rename, a link, a removal, a new folder, a truncation, a sync, or a commit of SQLite,
unless it changes nothing. The kill comes before it. At a sync half of what was written since the last one is taken away
first, as when a machine stops. What Arrow, torch and safetensors write by themselves shows as the steps around it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMES = {"os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1}


class Moments:
    """The moments of this process.

    Args:
        log: a file outside of the working directory, which gets a line for each.
        kill_at: the moment, from 1, at which the process kills itself; None: it does not.
    """

    def __init__(self, log: str, kill_at: int | None) -> None:
        self._root = os.getcwd() + os.sep
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._kill_at = kill_at
        self._count = 0
        self._synced: dict[int, int] = {}
        self._sync = os.fsync

    def watch(self) -> None:
        sys.addaudithook(self._audit)
        os.fsync = self._fsync

    def at(self, what: str) -> bool:
        """Count a moment; return whether it is the one."""
        self._count += 1
        os.write(self._log, f"{what}\n".encode())
        return self._count == self._kill_at

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and flags & _WRITING and self._inside(path):
                self._opened(path)
                self._pass(f"open {os.fsdecode(path)}")
        elif event in _NAMES:
            paths = arguments[: _NAMES[event]]
            if event == "os.mkdir" and os.path.isdir(paths[0]):
                return
            if event == "os.remove" and arguments[1] == -1 and not os.path.lexists(paths[0]):
                return
            if any(isinstance(path, str | bytes | os.PathLike) and self._inside(path) for path in paths):
                self._pass(" ".join([event, *map(str, paths)]))

    def _inside(self, path: str | bytes | os.PathLike[str]) -> bool:
        return os.path.abspath(os.fsdecode(path)).startswith(self._root)

    def _opened(self, path: str | bytes) -> None:
        try:
            found = os.stat(path)
        except OSError:
            return
        self._synced.setdefault(found.st_ino, found.st_size)

    def _fsync(self, file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        name = os.readlink(f"/proc/self/fd/{number}")
        if self._inside(name) and not name.endswith(" (deleted)"):
            found = os.fstat(number)
            before = min(self._synced.get(found.st_ino, 0), found.st_size)
            if self.at(f"sync {name}"):
                os.truncate(f"/proc/self/fd/{number}", before + (found.st_size - before) // 2)
                self._die()
            self._synced[found.st_ino] = found.st_size
        self._sync(file)

    def _pass(self, what: str) -> None:
        if self.at(what):
            self._die()

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(values: dict[str, Any]) -> None:
    """For `Command.before`: watch this process. ``values`` are the arguments of `Moments`."""
    Moments(**values).watch()


def watch_sqlite(values: dict[str, Any]) -> None:
    """As `watch`, with the commits of SQLAlchemy's engines."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    moments = Moments(**values)
    event.listen(Engine, "commit", lambda connection: moments._pass("commit"))
    moments.watch()


def steady_clock(values: dict[str, Any]) -> None:
    """As `watch`, with a clock by which everything that `evaluate` times takes as long in each run."""
    from itertools import count
    from types import SimpleNamespace

    from ocrmem.evaluation import latency

    ticks = count()
    latency.time = SimpleNamespace(perf_counter=lambda: float(next(ticks)))  # type: ignore[attr-defined]
    watch(values)

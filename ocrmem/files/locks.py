"""One writer an output: a lock beside it, which the kernel holds for as long as its holder lives.

The lock is ``flock`` on a file ``.NAME.lock``. A process that ends in any way, kill -9 included, holds none any more;
the file may stay, and the next holder takes it over. What the file says is for the message of who is refused.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ocrmem.console import note
from ocrmem.errors import BusyError

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
LOCK_IN_VOLUME = ".ocrmem.lock"
_LOOK = 0.1  # seconds between two tries


class _Held(threading.local):
    def __init__(self) -> None:
        self.places: set[Path] = set()


_held = _Held()
_without_locks: set[Path] = set()


@contextmanager
def locked(output: Path | str, verb: str = "", *, wait: float = 0.0) -> Iterator[None]:
    """Be the only writer of an output within the block. A thread may lock again what it holds.

    Links are followed, so that all names of an output share one lock.

    Args:
        output: file or directory, which need not be there yet; its folder is made.
        verb: who writes, for the message of whoever comes second.
        wait: seconds to wait for another holder.

    Raises:
        BusyError: another process writes to it; names that process.
    """
    place = lock_of(output)
    if place in _held.places:
        yield
        return
    handle = _acquire(Path(output), place, verb, wait)
    _held.places.add(place)
    try:
        yield
    finally:
        _held.places.discard(place)
        with suppress(OSError):  # a file that stays is no lock
            place.unlink()
        os.close(handle)


def locking(
    verb: str, output: Callable[[Any], Path | str]
) -> Callable[[Callable[Concatenate[C, P], R]], Callable[Concatenate[C, P], R]]:
    """Run a verb's function with the lock of its output, which ``output`` gives for the function's first argument."""

    def decorate(function: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
        @wraps(function)
        def alone(config: C, *args: P.args, **kwargs: P.kwargs) -> R:
            with locked(output(config), verb):
                return function(config, *args, **kwargs)

        return alone

    return decorate


def lock_of(output: Path | str) -> Path:
    """Return the file whose lock is the output's: beside it, or within a mounted volume, whose folder is not ours."""
    real = Path(os.path.realpath(output))
    return real / LOCK_IN_VOLUME if real.is_mount() else real.with_name(f".{real.name}.lock")


def take(path: Path) -> int | None:
    """Open a file, making it if need be, and lock it.

    Returns:
        Its descriptor, for reading and writing, whose close ends the lock; None while another holds the lock. Where a
        file system knows no locks a note says so, once for each folder.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                if isinstance(error, BlockingIOError):
                    return None
                raise
            if path.parent not in _without_locks:
                _without_locks.add(path.parent)
                note(f"Warning: {path.parent} has no file locks: see to it that nothing else writes there.")
        # Its last holder may have removed or renamed it between our open and our lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False)):
                return handle
        os.close(handle)


def _acquire(output: Path, place: Path, verb: str, wait: float) -> int:
    place.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + wait
    while (handle := take(place)) is None:
        if time.monotonic() >= end:
            raise _busy(output, place)
        time.sleep(_LOOK)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since": time.strftime("%H:%M:%S")}
    with suppress(OSError):  # a full disk: what the verb writes next says so, and names its own file
        os.truncate(handle, 0)
        os.write(handle, json.dumps(holder).encode("ascii"))
    return handle


def _busy(output: Path, place: Path) -> BusyError:
    holder: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # it may be writing its name just now, or be gone
        found = json.loads(place.read_text(encoding="ascii"))
        holder = found if isinstance(found, dict) else {}
    verb = holder.get("verb")
    who = f"another `ocrmem {verb}`" if verb else "another process"
    if not {"pid", "host", "since"} <= holder.keys():
        return BusyError.of(str(output), f"is being written by {who}", "Wait until it is done, and run this again")
    where = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    if holder["host"] == socket.gethostname() and not _alive(holder["pid"]):
        message = f"is being written by what {who} ({where}) has left behind: that process has ended, a child has not"
        return BusyError.of(str(output), message, f"End that child, which has {place} open, and run this again")
    remedy = "Wait until it is done, or stop it; to work beside it, name another place in paths"
    return BusyError.of(str(output), f"is being written by {who} ({where})", remedy)


def _alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, TypeError, OverflowError):
        return True
    return True

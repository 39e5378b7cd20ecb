"""What the system's errors about files mean to a person."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocrmem.errors import DiskError, OcrMemError, first_line

_AGAIN = "and run `{verb}` again; what was complete before is kept"
_ELSEWHERE = "or name a place in the settings or options that can be written"
_MEANINGS = {
    errno.ENOSPC: ("no space is left there", f"Free space (`df -h` shows where), {_AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"Free space (`quota` shows how much), {_AGAIN}"),
    errno.EFBIG: ("the file may not grow any further", f"Raise the limit (`ulimit -f`), {_AGAIN}"),
    errno.EROFS: ("the file system is read-only", f"Mount it to be written, {_ELSEWHERE}"),
    errno.EACCES: (
        "permission is denied",
        f"Give user {{user}} the right to it (`ls -ld` shows whose it is), {_ELSEWHERE}",
    ),
    errno.EPERM: ("the system does not allow it", f"Give user {{user}} the right to it, {_ELSEWHERE}"),
    errno.EMFILE: ("too many files are open in this process", f"Raise the limit (`ulimit -n 4096`), {_AGAIN}"),
    errno.ENFILE: ("too many files are open on this machine", f"End other processes, {_AGAIN}"),
    errno.EIO: ("the disk does not answer as it should", f"Look for its fault in the system's log (`dmesg`), {_AGAIN}"),
    errno.ENOENT: ("is not there", "Check the path, and that nothing removes it while `{verb}` runs"),
    errno.ENOTDIR: ("lies in something that is not a folder", f"Move that away, {_ELSEWHERE}"),
    errno.EISDIR: ("is a folder, where a file is wanted", f"Move it away, {_ELSEWHERE}"),
    errno.ELOOP: ("is a link that leads to itself, or to no file of its own", f"Remove the link, {_ELSEWHERE}"),
    errno.ENAMETOOLONG: ("the name is too long for its file system", "Give it a shorter name or a shorter path"),
    errno.ESTALE: ("the server of that volume has lost it", f"Mount the volume anew, {_AGAIN}"),
}
# Temporary names, as writers make them beside what they stand for.
_TEMPORARY = re.compile(r"\.(?P<name>.+?)(?:\.\d+\.tmp|\.new|\.old|\.lock)")
# How Rust's and Python's libraries put a system's error into a text of their own.
_IN_TEXT = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]", re.IGNORECASE)


@contextmanager
def disk_errors(verb: str) -> Iterator[None]:
    """Turn a system's error that the block lets out into a `DiskError` of the file that it names.

    Args:
        verb: what runs, as a person would type it.

    Raises:
        DiskError: with path, cause and remedy.
    """
    try:
        yield
    except OcrMemError:
        raise
    except Exception as error:
        if (found := _system_error(error)) is None:
            raise
        raise _disk_error(found, verb) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an error that does not: the system names it when it is opened, and not when it is written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def _system_error(error: BaseException) -> OSError | None:
    if isinstance(error, OSError):
        return error
    if found := _IN_TEXT.search(str(error)):
        code = int(found[1] or found[2])
        return OSError(code, os.strerror(code))
    return None


def _disk_error(error: OSError, verb: str) -> DiskError:
    code = error.errno
    if code is None or isinstance(error, ConnectionError | TimeoutError):
        return DiskError.of(verb, first_line(error), f"Check the network and the disk, {_AGAIN.format(verb=verb)}")
    said = (error.strerror or os.strerror(code)).rstrip(".")
    message, remedy = _MEANINGS.get(code, ("cannot be used", f"See to that place, {_AGAIN}"))
    remedy = remedy.format(verb=verb, user=os.geteuid())
    return DiskError.of(_place(error, verb), f"{message} ({errno.errorcode.get(code, code)}: {said})", remedy)


def _place(error: OSError, verb: str) -> str:
    # Of two names, as of a rename, the second is the one that was to be.
    name = error.filename2 or error.filename
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str):
        return verb
    parts = (found["name"] if (found := _TEMPORARY.fullmatch(part)) else part for part in Path(name).parts)
    return str(Path(*parts))

"""A working directory on a disk that takes nothing: read-only, full, or not this user's. For `Command.before`.

Read-only and full are real file systems in a mount namespace of the process; where the machine allows none, every
opening to write ends in the error that they would give (but not what Arrow, torch and sqlite open by themselves).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000  # unshare(2)
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18  # mount(2)
_CAPABILITIES_V3 = 0x20080522
_OVERRIDING = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what makes root read and write everything
_libc = ctypes.CDLL(None, use_errno=True)


def read_only(values: dict[str, Any]) -> None:
    root = Path.cwd()
    try:
        _own_mounts()
        _mount(root, root, None, _BIND)
        _mount(None, root, None, _BIND | _REMOUNT | _READ_ONLY)
    except OSError:
        _refuse(root, errno.EROFS)
    os.chdir(root)


def full(values: dict[str, Any]) -> None:
    _fill(0)


def filling(values: dict[str, Any]) -> None:
    """A few blocks are left: the disk fills up while the verb writes."""
    _fill(2)


def _fill(pages: int) -> None:
    root = Path.cwd()
    copy = root.with_name(f"{root.name} copy")
    shutil.copytree(root, copy, symlinks=True)
    try:
        _own_mounts()
        _mount("tmpfs", root, "tmpfs", 0, "size=64m")
        shutil.copytree(copy, root, symlinks=True, dirs_exist_ok=True)
    except OSError:
        _refuse(root, errno.ENOSPC)
    else:
        os.chdir(root)
        with open(".filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                filler.truncate(max(filler.tell() - 4096 * pages, 0))
    finally:
        shutil.rmtree(copy)


def unwritable(values: dict[str, Any]) -> None:
    root = Path.cwd()
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    # Pairs of effective, permitted and inheritable; the second pair is for capabilities from 32 on.
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    _checked(_libc.capget(header, sets))
    sets[0] &= ~_OVERRIDING
    _checked(_libc.capset(header, sets))


def _own_mounts() -> None:
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEW_MOUNTS):
        _checked(_libc.unshare(_NEW_MOUNTS | _NEW_USER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount("none", Path("/"), None, _RECURSIVE | _PRIVATE)


def _mount(source: Path | str | None, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _checked(_libc.mount(*texts, ctypes.c_ulong(flags), None if data is None else data.encode()))


def _checked(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _refuse(root: Path, code: int) -> None:
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & writing:
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(f"{root}{os.sep}"):
                raise OSError(code, os.strerror(code), path)

    sys.addaudithook(refuse)

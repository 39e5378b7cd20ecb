"""Whether outputs can be written, asked before the work that they are of."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from ocrmem.errors import ConfigError, Problem


def require_places(places: Iterable[Path]) -> None:
    """Write a byte to where each file or directory will be, and delete it again; nothing else proves that it can be.

    Raises:
        ConfigError: with every place that cannot be written.
    """
    if problems := [problem for place in places if (problem := _write_problem(place))]:
        raise ConfigError(problems)


def _write_problem(place: Path) -> Problem | None:
    real = Path(os.path.realpath(place))
    # What is replaced as a whole needs its folder, unless that is a volume's; what is added to needs itself.
    folders = {nearest_folder(real if real.is_mount() else real.parent)} | ({real} if real.is_dir() else set())
    for folder in sorted(folders):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            message = f"cannot be written: {folder}: {error.strerror or error}"
            remedy = "Name another place in paths, or make room and give this user the right to write there"
            return Problem(str(place), message, remedy)
    return None


def nearest_folder(path: Path) -> Path:
    """Return the path, or what exists nearest above it."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def room(needs: Mapping[str, tuple[Path, int]], remedy: str) -> tuple[list[str], list[Problem]]:
    """Compare what will be written with what is free; places on one disk are added up.

    Args:
        needs: place and bytes by the name of the setting.

    Returns:
        A line for each disk, and the problems.
    """
    disks: dict[int, list[str]] = defaultdict(list)
    for name, (place, _) in needs.items():
        disks[nearest_folder(place).stat().st_dev].append(name)
    said, problems = [], []
    for names in disks.values():
        needed = sum(needs[name][1] for name in names)
        free = shutil.disk_usage(nearest_folder(needs[names[0]][0])).free
        listed = " and ".join(names)
        said.append(f"{listed} need about {_size(needed)} of {_size(free)}")
        if needed > free:
            problems.append(
                Problem(names[0], f"{listed} need about {_size(needed)}, and {_size(free)} are free", remedy)
            )
    return said, problems


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"

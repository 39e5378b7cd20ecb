"""What would keep a finished training from being written down, asked before its first step."""

from __future__ import annotations

from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError
from ocrmem.facts import PACKAGE_FILES, TRAIN_REPORT
from ocrmem.files import is_leftover
from ocrmem.places import require_places, room

PLOT = "plots/train.csv"
_WEIGHT_BYTES = 4  # proj is float32 whatever the precision
_STATE_BYTES = 3 * _WEIGHT_BYTES  # of a checkpoint: with AdamW's two moments


def check_outputs(config: RunConfig, adapter: Path) -> None:
    """Refuse places that cannot be written, and an adapter's directory that holds anything else: it is replaced whole.

    Raises:
        ConfigError: names them.
    """
    if adapter.exists() and not adapter.is_dir():
        raise ConfigError.of(str(adapter), "is a file, not a directory", "Give another directory for the adapter")
    found = (path.name for path in adapter.glob("*") if path.name not in PACKAGE_FILES)
    others = sorted(name for name in found if not is_leftover(name))
    if others:
        raise ConfigError.of(
            str(adapter),
            f"is to be replaced by the new adapter, but holds other files: {', '.join(others[:5])}",
            "Give a directory that is new, empty or holds an adapter",
        )
    reports = [config.paths.report(name) for name in (TRAIN_REPORT, PLOT)]
    require_places([adapter, Path(config.paths.checkpoints), *reports])


def require_room(config: RunConfig, adapter: Path, parameters: int) -> None:
    """Refuse a disk on which adapter and checkpoints do not fit, as far as they are not there yet.

    Args:
        parameters: trained ones.

    Raises:
        ConfigError: names the disk's places, what they need and what is free.
    """
    section, checkpoints = config.train, Path(config.paths.checkpoints)
    one = parameters * _STATE_BYTES
    kept = min(section.save_total_limit, -(-section.max_steps // section.save_steps))
    there = sum(file.stat().st_size for file in checkpoints.glob("checkpoint-*/*"))
    needs = {
        str(adapter): (adapter, parameters * _WEIGHT_BYTES),
        str(checkpoints): (checkpoints, max(one * (kept + 1) - there, one)),
    }
    _, problems = room(needs, "Free space, name a folder on another disk, or lower train.save_total_limit")
    if problems:
        raise ConfigError(problems)

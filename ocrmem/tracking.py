"""Record the curves, settings and artifacts of a run: with Weights & Biases, offline by default.

Offline needs no account, key or network: a run lands in ``paths.tracking`` and ``wandb sync`` uploads it later. This is
the only module that imports wandb. Another tracker is a `Run` in `TRACKERS`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, DataError
from ocrmem.secrets import HIDDEN, looks_secret, redact


class Run:
    """A run that tracks nothing, and the interface of those that do.

    Attributes:
        place: the folder that holds the run; None where there is none.
    """

    place: Path | None = None

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers by name at an optimizer step; None lets the tracker count.

        Steps must not go down; values that are not finite are left out.
        """

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set the run's summary: its final figures."""

    def artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Log a file or a directory as an artifact of the run, with plain values beside it.

        Args:
            kind: the artifact's type, such as ``model`` or ``report``.

        Raises:
            DataError: ``path`` does not exist.
        """

    def finish(self, *, failed: bool) -> None:
        """Close the run as finished or failed."""


class WandbRun(Run):
    """A run in Weights & Biases; offline, its files wait for ``wandb sync``.

    Args:
        config: ``tracking`` says where and under which names; all settings are recorded with the run, without
            anything that looks like a secret.
        job: the verb; W&B's job type.

    Raises:
        ConfigError: wandb is not installed, or an online run has no key or cannot be started.
    """

    def __init__(self, config: RunConfig, job: str) -> None:
        section, place = config.tracking, Path(config.paths.tracking)
        # wandb puts its runs into a folder of its own name below the one it is given.
        root = place.parent if place.name == "wandb" else place
        place.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        # Offline artifacts wait in the data directory for `wandb sync`: keep them with the run, not in HOME.
        os.environ.setdefault("WANDB_DATA_DIR", str(place.absolute() / "data"))
        os.environ.setdefault("WANDB_CACHE_DIR", str(place.absolute() / "cache"))
        try:
            import wandb
        except ImportError:
            raise ConfigError.of(
                "tracking.wandb",
                f"is {section.wandb}, but the package wandb is not installed",
                "Install it with `pip install 'ocrmem[tracking]'`, or set tracking.wandb=disabled",
            ) from None
        if section.wandb == "online" and not wandb.login(prompt=False, verify=False):
            raise ConfigError.of(
                "tracking.wandb",
                "is online, but no Weights & Biases key was found",
                "Set WANDB_API_KEY in the environment or run `wandb login`, or set tracking.wandb=offline",
            )
        try:
            self._handle = wandb.init(
                mode=section.wandb,
                dir=str(root),
                project=section.project,
                entity=section.entity,
                name=section.run_name,
                job_type=job,
                config=without_secrets(config.as_dict()),
                # stdout is the verb's result; git remotes and command lines may hold credentials.
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    save_code=False,
                    x_disable_stats=True,
                ),
            )
        except wandb.errors.Error as error:
            raise ConfigError.of(
                "tracking.wandb",
                f"a run could not be started ({redact(str(error))})",
                "Check the key, the project and the network, or set tracking.wandb=offline",
            ) from error
        self.place = Path(self._handle.dir).parent if section.wandb == "offline" else None

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._handle.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)

    def summarize(self, values: Mapping[str, Any]) -> None:
        self._handle.summary.update(without_secrets(values))

    def artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        if not path.exists():
            raise DataError.of(str(path), "cannot be logged: it does not exist", "Run the verb that writes it first")
        import wandb

        artifact = wandb.Artifact(
            re.sub(r"[^\w.-]+", "-", name), type=kind, metadata=without_secrets(dict(metadata or {}))
        )
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
        self._handle.log_artifact(artifact)

    def finish(self, *, failed: bool) -> None:
        self._handle.finish(exit_code=int(failed))


# Trackers by the field of ``tracking`` that switches them on, unless it is "disabled".
TRACKERS: dict[str, Callable[[RunConfig, str], Run]] = {"wandb": WandbRun}


@contextmanager
def track(config: RunConfig, job: str) -> Iterator[Run]:
    """Open a tracked run for the verb ``job``; it is closed as finished, or as failed when the block raises.

    Args:
        config: ``tracking`` says with what, if anything.

    Raises:
        ConfigError: the tracker cannot be used.
    """
    wanted = [tracker for name, tracker in TRACKERS.items() if getattr(config.tracking, name) != "disabled"]
    run = wanted[0](config, job) if wanted else Run()
    failed = True
    try:
        yield run
        failed = False
    finally:
        run.finish(failed=failed)


def without_secrets(value: Any, name: str = "") -> Any:
    """Return a copy of the plain values of a field ``name``; what looks like a key, by name or form, is hidden."""
    if isinstance(value, Mapping):
        return {inner: without_secrets(field, str(inner)) for inner, field in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, name) for inner in value]
    return HIDDEN if looks_secret(name, value) else value

"""Record the curves, settings and artifacts of a run: with Weights & Biases, offline by default.

Offline needs no account, key or network: a run lands in ``paths.tracking`` and ``wandb sync`` uploads it later. This is
the only module that imports wandb. Another tracker is a `Run` in `TRACKERS`.
"""

from __future__ import annotations

import math
import netrc
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import ConfigError, DataError, Problem, first_line
from ocrmem.extras import missing_package
from ocrmem.health import NoAnswerError, ask
from ocrmem.secrets import HIDDEN, looks_secret, redact, redact_uri

_WANDB = "https://api.wandb.ai"


class Run:
    """A run that tracks nothing, and the interface of those that do.

    Attributes:
        place: the folder that holds the run; None where there is none.
    """

    place: Path | None = None

    def __init__(self, config: RunConfig, job: str) -> None:
        """Open a run of the verb ``job``."""

    @classmethod
    def problems(cls, config: RunConfig) -> list[Problem]:
        """Return what would stop a run, without starting one."""
        return []

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

    @classmethod
    def problems(cls, config: RunConfig) -> list[Problem]:
        if find_spec("wandb") is None:
            return [missing_package("tracking.wandb", "wandb")]
        if config.tracking.wandb != "online":
            return []
        server = os.environ.get("WANDB_BASE_URL", _WANDB)
        problems = []
        if not os.environ.get("WANDB_API_KEY", "").strip() and not _in_netrc(urlsplit(server).hostname or ""):
            remedy = "Set WANDB_API_KEY in the environment or run `wandb login`, or set tracking.wandb=offline"
            problems.append(Problem("tracking.wandb", "is online, but there is no Weights & Biases key", remedy))
        try:
            ask(server)  # a refusal of the bare address is an answer too
        except NoAnswerError as error:
            message = f"is online, but {redact_uri(server)} does not answer ({error})"
            problems.append(Problem("tracking.wandb", message, "Check the network, or set tracking.wandb=offline"))
        return problems

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


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class _CarefulRun(Run):
    """A run whose tracker may break down without taking the work along: a note says so, and nothing more is sent."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._works = True
        self.place = run.place

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._try(lambda: self._run.log(values, step))

    def summarize(self, values: Mapping[str, Any]) -> None:
        self._try(lambda: self._run.summarize(values))

    def artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        self._run.artifact(name, kind, path, metadata)

    def finish(self, *, failed: bool) -> None:
        self._try(lambda: self._run.finish(failed=failed))

    def _try(self, send: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            send()
        except Exception as error:  # noqa: BLE001  # whatever a tracker's library raises
            self._works = False
            note(f"Warning: the tracker has failed ({redact(first_line(error))}); the run goes on without it.")


# Trackers by the field of ``tracking`` that switches them on, unless it is "disabled".
TRACKERS: dict[str, type[Run]] = {"wandb": WandbRun}


def _tracker(config: RunConfig) -> type[Run]:
    wanted = [tracker for name, tracker in TRACKERS.items() if getattr(config.tracking, name) != "disabled"]
    return wanted[0] if wanted else Run


def tracker_problems(config: RunConfig) -> list[Problem]:
    """Return what would stop a tracked run: a missing package or key, a server that does not answer within seconds."""
    return _tracker(config).problems(config)


@contextmanager
def track(config: RunConfig, job: str) -> Iterator[Run]:
    """Open a tracked run for the verb ``job``; it is closed as finished, or as failed when the block raises.

    A tracker that fails once the run is open costs a note: figures are lost then, not what they are about.

    Args:
        config: ``tracking`` says with what, if anything.

    Raises:
        ConfigError: the tracker cannot be used.
    """
    run = _CarefulRun(_tracker(config)(config, job))
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

"""Whether the language model and the encoder are available: tiny, a directory, the hub's cache, or the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ocrmem.config import TINY, RunConfig
from ocrmem.errors import ModelError, Problem, first_line
from ocrmem.extras import missing_package
from ocrmem.families import EXAMPLE
from ocrmem.files import read_json
from ocrmem.health import ANSWER_SECONDS
from ocrmem.readiness.outcome import CheckOutcome
from ocrmem.secrets import redact

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def here(config: RunConfig) -> CheckOutcome:
    """Check for a run on this machine: directories are read, hub names are looked for in the cache and on the hub."""
    return _available(config, directories=True)


def named(config: RunConfig) -> CheckOutcome:
    """Check for a run elsewhere: directories are the pods', so only hub names are looked up."""
    return _available(config, directories=False)


def _available(config: RunConfig, *, directories: bool) -> CheckOutcome:
    model = config.model
    details: list[str] = []
    problems: list[Problem] = []
    for field, name, revision in (
        ("model.base_model_name", model.base_model_name, model.base_revision),
        ("model.ocr_model_name", model.ocr_model_name, model.ocr_revision),
    ):
        if name == TINY:
            details.append("tiny (`ocrmem base` builds it)")
        elif name.startswith((".", "/", "~")) or os.path.isdir(name):
            if directories:
                problems += _directory_problems(field, Path(name).expanduser())
            details.append(f"{name} is a directory" + ("" if directories else " of the pods, not checked"))
        else:
            try:
                details.append(_on_the_hub(field, name, revision))
            except ModelError as error:
                problems += error.problems
    return "; ".join(details), problems


def _directory_problems(field: str, directory: Path) -> Iterator[Problem]:
    if not directory.is_dir():
        yield Problem(
            field,
            f"is {directory}, which is not there",
            f"Give a directory with the model, or a hub name such as {EXAMPLE}",
        )
    elif missing := _missing_files(directory):
        yield Problem(field, f"is {directory}, which has no {missing}", "Copy the complete model there")


def _missing_files(directory: Path) -> str | None:
    """Return the first file that a model's directory lacks; weights are one file or the shards that an index names."""
    if not (directory / "config.json").is_file():
        return "config.json"
    single, index = (directory / name for name in _WEIGHTS)
    if single.is_file():
        return None
    if not index.is_file():
        return single.name
    shards = sorted(set(read_json(index, made_by="base")["weight_map"].values()))
    return next((name for name in shards if not (directory / name).is_file()), None)


def _on_the_hub(field: str, name: str, revision: str | None) -> str:
    """Return where a hub name was found.

    Raises:
        ModelError: it was not, or does not fit into the cache.
    """
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise ModelError(missing_package(field, "huggingface_hub")) from None
    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if _missing_files(cached) is None:
            return f"{name} is in the cache"
    except LocalEntryNotFoundError:
        pass
    except HFValidationError:
        remedy = f"Give tiny, a directory, or a hub name such as {EXAMPLE}"
        raise ModelError.of(field, f"{name!r} is not a model's name", remedy) from None
    if constants.HF_HUB_OFFLINE:
        message = f"{name} is incomplete in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set"
        raise ModelError.of(field, message, "Download it beforehand (`ocrmem base`), or unset HF_HUB_OFFLINE")
    # The hub's client lets the errors of its HTTP library through, whose name depends on its version.
    unanswered: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
    token = "Set HF_TOKEN to a token of an account that may read it, or fix the name"
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)
    except GatedRepoError:
        raise ModelError.of(field, f"{name} is gated on the hub", f"Accept its terms there. {token}") from None
    except RevisionNotFoundError:
        raise ModelError.of(field, f"{name} has no revision {revision}", "Give a commit that the hub shows") from None
    except RepositoryNotFoundError:
        raise ModelError.of(field, f"the hub does not know {name}, or does not show it to you", token) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        message = f"the hub {constants.ENDPOINT} answers {status} for {name}"
        raise ModelError.of(field, message, "Try again later") from None
    except unanswered as error:
        reason = redact(first_line(error))
        message = f"{name} is not in the cache, and the hub {constants.ENDPOINT} does not answer ({reason})"
        remedy = "Check the network, or download the model beforehand with `ocrmem base`"
        raise ModelError.of(field, message, remedy) from None
    needed = sum(file.size or 0 for file in info.siblings or [])
    folder = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if needed > free:
        message = f"{name} has {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free in {folder}"
        raise ModelError.of(field, message, "Free space, or set HF_HOME to a larger disk")
    return f"{name} is on the hub ({needed / 2**30:.1f} GiB)"

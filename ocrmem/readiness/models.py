"""Check that the language model and the encoder are available: tiny, a directory, the hub's cache, or the hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ocrmem.config import TINY, RunConfig
from ocrmem.config.known_encoders import ENGLISH
from ocrmem.errors import ModelError, Problem, first_line
from ocrmem.extras import missing_package
from ocrmem.families import EXAMPLE
from ocrmem.health import ANSWER_SECONDS
from ocrmem.json_files import WeightIndex, read_json
from ocrmem.model_places import Part, left_by_base
from ocrmem.readiness.outcome import CheckOutcome
from ocrmem.secrets import redact

_COMPLETE = "Copy the complete model there"


def available(config: RunConfig, *, directories: bool) -> CheckOutcome:
    """Look for hub names in the cache and on the hub, and read ``directories`` unless they are a pod's."""
    model = config.model
    details: list[str] = []
    problems: list[Problem] = []
    for field, name, revision in (
        ("model.base_model_name", model.base_model_name, model.base_revision),
        ("model.ocr_model_name", model.ocr_model_name, model.ocr_revision),
    ):
        try:
            part: Part = "base" if field == "model.base_model_name" else "encoder"
            if name == TINY:
                details.append("tiny (`ocrmem base` builds it)")
            elif (part, name) == ("encoder", ENGLISH):
                details.append("english (in the box)")
            elif left_by_base(name, config.paths.models, part, revision):
                details.append(f"{name} is in {Path(config.paths.models) / part}")
            elif not (name.startswith((".", "/", "~")) or os.path.isdir(name)):
                details.append(_on_the_hub(field, name, revision))
            else:
                details.append(
                    _in_directory(field, name) if directories else f"{name} is a directory of the pods, not checked"
                )
        except ModelError as error:
            problems += error.problems
    return "; ".join(details), problems


def _in_directory(field: str, name: str) -> str:
    directory = Path(name).expanduser()
    if not directory.is_dir():
        remedy = f"Give a directory with the model, or a hub name such as {EXAMPLE}"
        raise ModelError.of(field, f"is {directory}, which is not there", remedy)
    if missing := _missing_file(directory):
        raise ModelError.of(field, f"is {directory}, which has no {missing}", _COMPLETE)
    return f"{name} is a directory"


def _missing_file(directory: Path) -> str | None:
    """Return the first file that a model's directory lacks; weights are one file or the shards that an index names."""
    needed = ["config.json", "model.safetensors"]
    index = directory / "model.safetensors.index.json"
    if index.is_file() and not (directory / "model.safetensors").is_file():
        needed[1:] = sorted(
            set(
                read_json(index, WeightIndex, made_by="base", remedy=_COMPLETE, error=ModelError)["weight_map"].values()
            )
        )
    return next((name for name in needed if not (directory / name).is_file()), None)


def _on_the_hub(field: str, name: str, revision: str | None) -> str:
    """Return where a hub name was found; raise `ModelError` if it was not, or does not fit into the cache."""
    try:
        from huggingface_hub import HfApi, constants, errors, snapshot_download
    except ImportError:
        raise ModelError(missing_package(field, "huggingface_hub")) from None
    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if _missing_file(cached) is None:
            return f"{name} is in the cache"
    except errors.LocalEntryNotFoundError:
        pass
    except errors.HFValidationError:
        remedy = f"Give tiny, a directory, or a hub name such as {EXAMPLE}"
        raise ModelError.of(field, f"{name!r} is not a model's name", remedy) from None
    if constants.HF_HUB_OFFLINE:
        message = f"{name} is incomplete in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set"
        raise ModelError.of(field, message, "Download it beforehand (`ocrmem base`), or unset HF_HUB_OFFLINE")
    # The hub's client lets the errors of its HTTP library through, whose name depends on its version.
    unanswered: tuple[type[Exception], ...] = (OSError, *errors.HfHubHTTPError.__bases__)
    token = "Set HF_TOKEN to a token of an account that may read it, or fix the name"
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)
    except errors.GatedRepoError:
        raise ModelError.of(field, f"{name} is gated on the hub", f"Accept its terms there. {token}") from None
    except errors.RevisionNotFoundError:
        raise ModelError.of(field, f"{name} has no revision {revision}", "Give a commit that the hub shows") from None
    except errors.RepositoryNotFoundError:
        raise ModelError.of(field, f"the hub does not know {name}, or does not show it to you", token) from None
    except errors.HfHubHTTPError as error:
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

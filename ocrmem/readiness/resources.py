"""Packages, keys, device and disk of the machine that starts a run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.dataset.manifest import manifest_of
from ocrmem.extras import missing_package
from ocrmem.facts import MANIFEST, tokens_per_page
from ocrmem.places import room
from ocrmem.readiness.outcome import CheckOutcome
from ocrmem.registries import registry_kind
from ocrmem.storage import is_s3
from ocrmem.tracking import tracker_problems
from ocrmem.validation.machine import device_problems

_BYTES_A_PARAMETER = 12  # of a checkpoint: proj's weights and AdamW's two moments, in float32
_LARGE_HIDDEN_SIZE = 4096  # of an 8B model, for a base model that is not loaded


def packages(config: RunConfig) -> CheckOutcome:
    """Check that the libraries are installed that only some settings need, and only late in a run."""
    wanted = [("register.uri", registry_kind(config.registry.uri).package)]  # setting, package
    if config.train.lora is not None:
        wanted.append(("train.lora", "peft"))
    if config.version.remote is not None:
        wanted.append(("version.remote", "dvc"))
        if is_s3(config.version.remote):
            wanted.append(("version.remote", "dvc_s3"))
    problems = [missing_package(field, package) for field, package in wanted if find_spec(package) is None]
    return ", ".join(package for _, package in wanted), problems


def tracking(config: RunConfig) -> CheckOutcome:
    """Check that the tracker is installed, and that an online run has a key and an answer from its server."""
    mode = config.tracking.wandb
    said = "there is a key, and the server answers" if mode == "online" else "nothing is needed"
    return f"{mode}, {said}", tracker_problems(config)


def device(config: RunConfig) -> CheckOutcome:
    """Check that this machine has ``model.device`` and supports ``model.precision``."""
    notes: list[str] = []
    problems = device_problems(config, notes)
    return "; ".join([f"{config.model.device}, {config.model.precision}", *notes]), problems


def disk(config: RunConfig) -> CheckOutcome:
    """Check that features and checkpoints will fit, roughly; folders on one disk are added up."""
    needs = {
        "paths.features": (Path(config.paths.features), _feature_bytes(config)),
        "paths.checkpoints": (Path(config.paths.checkpoints), _checkpoint_bytes(config)),
    }
    said, problems = room(needs, "Free space, name a folder on another disk, or lower train.save_total_limit")
    return "; ".join(said), problems


def _feature_bytes(config: RunConfig) -> int:
    """Return the bytes of the pages that are not encoded yet; 0 before the dataset is rendered: nobody knows then."""
    manifest = Path(config.paths.dataset) / MANIFEST
    if not manifest.exists():
        return 0
    pages = manifest_of(manifest.parent)["counts"]["unique_pages"]
    tokens = tokens_per_page(config.render.page_size, config.render.token_size)
    width = 4 if config.model.precision == "float32" else 2
    features = Path(config.paths.features)
    there = sum(file.stat().st_size for file in features.glob("rows-*.bin"))
    return max(0, pages * tokens * config.model.vision_embedding_size * width - there)


def _checkpoint_bytes(config: RunConfig) -> int:
    hidden = config.model.projector_hidden_size or _LARGE_HIDDEN_SIZE
    parameters = (config.model.vision_embedding_size + _LARGE_HIDDEN_SIZE) * hidden
    return parameters * _BYTES_A_PARAMETER * (config.train.save_total_limit + 1)

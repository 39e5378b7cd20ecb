"""Packages, keys, device and disk of the machine that starts a run."""

from __future__ import annotations

import netrc
import os
import shutil
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from ocrmem.config import RunConfig
from ocrmem.errors import Problem
from ocrmem.extras import missing_package
from ocrmem.facts import MANIFEST, tokens_per_page
from ocrmem.files import read_json
from ocrmem.health import NoAnswerError, ask
from ocrmem.readiness.outcome import CheckOutcome
from ocrmem.registries import registry_kind
from ocrmem.storage import is_s3
from ocrmem.validation.machine import device_problems

_WANDB = "https://api.wandb.ai"
_BYTES_A_PARAMETER = 12  # of a checkpoint: proj's weights and AdamW's two moments, in float32
_LARGE_HIDDEN_SIZE = 4096  # of an 8B model, for a base model that is not loaded


def packages(config: RunConfig) -> CheckOutcome:
    """Check that the libraries are installed that only the run's last steps import."""
    wanted: list[tuple[str, str]] = []  # setting, package
    if config.tracking.wandb != "disabled":
        wanted.append(("tracking.wandb", "wandb"))
    wanted.append(("register.uri", registry_kind(config.registry.uri).package))
    if config.version.remote is not None:
        wanted.append(("version.remote", "dvc"))
        if is_s3(config.version.remote):
            wanted.append(("version.remote", "dvc_s3"))
    problems = [missing_package(field, package) for field, package in wanted if find_spec(package) is None]
    return ", ".join(package for _, package in wanted), problems


def tracking(config: RunConfig) -> CheckOutcome:
    """Check that an online run has a key and reaches Weights & Biases."""
    if config.tracking.wandb != "online":
        return f"{config.tracking.wandb}, nothing is needed", []
    server = os.environ.get("WANDB_BASE_URL", _WANDB)
    problems = []
    if not os.environ.get("WANDB_API_KEY", "").strip() and not _in_netrc(urlsplit(server).hostname or ""):
        remedy = "Set WANDB_API_KEY in the environment or run `wandb login`, or set tracking.wandb=offline"
        problems.append(Problem("tracking.wandb", "is online, but there is no Weights & Biases key", remedy))
    try:
        ask(server)  # a refusal of the bare address is an answer too
    except NoAnswerError as error:
        message = f"is online, but {server} does not answer ({error})"
        problems.append(Problem("tracking.wandb", message, "Check the network, or set tracking.wandb=offline"))
    return f"there is a key, and {server} answers", problems


def device(config: RunConfig) -> CheckOutcome:
    """Check that this machine has ``model.device`` and supports ``model.precision``."""
    notes: list[str] = []
    problems = device_problems(config, notes)
    return "; ".join([f"{config.model.device}, {config.model.precision}", *notes]), problems


def disk(config: RunConfig) -> CheckOutcome:
    """Check that features and checkpoints will fit, roughly; folders on one disk are added up."""
    needs = {"paths.features": _feature_bytes(config), "paths.checkpoints": _checkpoint_bytes(config)}
    disks: dict[int, list[str]] = defaultdict(list)
    for field in needs:
        disks[_folder(config, field).stat().st_dev].append(field)
    said, problems = [], []
    for fields in disks.values():
        needed = sum(needs[field] for field in fields)
        free = shutil.disk_usage(_folder(config, fields[0])).free
        names = " and ".join(fields)
        said.append(f"{names} need about {_size(needed)} of {_size(free)}")
        if needed > free:
            message = f"{names} need about {_size(needed)}, and {_size(free)} are free"
            remedy = "Free space, name a folder on another disk, or lower train.save_total_limit"
            problems.append(Problem(fields[0], message, remedy))
    return "; ".join(said), problems


def _feature_bytes(config: RunConfig) -> int:
    """Return the bytes of the pages that are not encoded yet; 0 before the dataset is rendered: nobody knows then."""
    manifest = Path(config.paths.dataset) / MANIFEST
    if not manifest.exists():
        return 0
    pages = read_json(manifest, made_by="render").get("counts", {}).get("unique_pages", 0)
    tokens = tokens_per_page(config.render.page_size, config.render.token_size)
    width = 4 if config.model.precision == "float32" else 2
    features = Path(config.paths.features)
    there = sum(file.stat().st_size for file in features.glob("rows-*.bin"))
    return max(0, pages * tokens * config.model.vision_embedding_size * width - there)


def _checkpoint_bytes(config: RunConfig) -> int:
    hidden = config.model.projector_hidden_size or _LARGE_HIDDEN_SIZE
    parameters = (config.model.vision_embedding_size + _LARGE_HIDDEN_SIZE) * hidden
    return parameters * _BYTES_A_PARAMETER * (config.train.save_total_limit + 1)


def _folder(config: RunConfig, field: str) -> Path:
    """Return a setting's folder, or the nearest existing one above it."""
    path = Path(getattr(config.paths, field.removeprefix("paths.")))
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"

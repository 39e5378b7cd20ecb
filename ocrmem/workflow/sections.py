"""Which settings a task needs.

A task gets these and no others, so a cached task stands when a setting that it does not read has changed: what
``params:`` of a stage is to DVC. `validate` hands them out once it has checked the whole.
"""

from __future__ import annotations

import json
from typing import Any

from ocrmem.config import RunConfig

# What sizes depend on; evaluate.max_new_tokens is there for a rule that joins it with the model's sections.
COMMON = ("model", "render", "data", "evaluate.max_new_tokens")
EVERYTHING = tuple(field.alias or name for name, field in RunConfig.model_fields.items() if name != "paths")
OF_STEP: dict[str, tuple[str, ...]] = {
    "preflight": EVERYTHING,
    "base": (*COMMON, "base"),
    "render": COMMON,
    "check": (*COMMON, "check"),
    "version": (*COMMON, "version"),
    "encode": COMMON,
    "smoke": (*COMMON, "smoke", "train.seed"),
    "train": (*COMMON, "train", "tracking", "kubernetes"),
    "evaluate": (*COMMON, "evaluate", "train.seed"),
    "gate": (*COMMON, "register"),
    "register": EVERYTHING,
}


def settings_of(config: RunConfig, step: str) -> str:
    """The settings of a task as one line of JSON, which `RunConfig.load` reads as the YAML it is."""
    values = config.as_dict()
    chosen: dict[str, Any] = {}
    for name in OF_STEP[step]:
        section, _, field = name.partition(".")
        if not field:
            chosen[section] = values[section]
        else:
            chosen.setdefault(section, {})[field] = values[section][field]
    return json.dumps(chosen, ensure_ascii=False, sort_keys=True)

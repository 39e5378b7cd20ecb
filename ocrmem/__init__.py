"""Optical memory adapters: old conversation text as page images in front of a frozen language model.

Every verb is a function here, as `ocrmem.steps` has it: ``ocrmem.render(config)`` is what ``ocrmem render`` runs, and
returns a result whose ``summary`` is what the command prints. Names are imported when they are first used, so
``import ocrmem`` stays light.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "MEMConfig": "ocrmem.model.configuration",
    "MEMModel": "ocrmem.model.modeling",
    "AdapterOnlyTrainer": "ocrmem.training.trainer",
    "AdapterTrainingArguments": "ocrmem.training.arguments",
    "RunConfig": "ocrmem.config",
    "ChatSession": "ocrmem.generation.chat_session",
    "Memory": "ocrmem.generation.memory",
}
__all__ = [
    "AdapterOnlyTrainer",
    "AdapterTrainingArguments",
    "ChatSession",
    "MEMConfig",
    "MEMModel",
    "Memory",
    "RunConfig",
    "gradflow",
]


def __getattr__(name: str) -> Any:
    if name == "gradflow":
        return importlib.import_module("ocrmem.gradflow")
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    step = _verbs().get(name)
    if step is None:
        raise AttributeError(f"module 'ocrmem' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    return step.load()


def __dir__() -> list[str]:
    return [*__all__, *_verbs(), "__version__"]


def _verbs() -> dict[str, Any]:
    from ocrmem.steps import COMMANDS

    return {name.replace("-", "_"): step for name, step in COMMANDS.items() if step.function}

"""The rules that join fields, a file a topic; importing this package registers all of them in `RULES`."""

from ocrmem.config.rules import deepspeed, kubernetes, model, outputs, pages, stores, thresholds, training
from ocrmem.config.rules.rule import RULES, Fault, Rule

__all__ = [
    "Fault",
    "RULES",
    "Rule",
    "deepspeed",
    "kubernetes",
    "model",
    "outputs",
    "pages",
    "stores",
    "thresholds",
    "training",
]

"""The rules that join fields, a file a topic; importing this package registers all of them in `RULES`."""

from ocrmem.config.rules import deepspeed, kubernetes, model, numbers, pages, places
from ocrmem.config.rules.rule import RULES, Rule

__all__ = ["RULES", "Rule", "deepspeed", "kubernetes", "model", "numbers", "pages", "places"]

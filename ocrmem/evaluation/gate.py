"""The gate: what an evaluation must show before an adapter may carry the registry's alias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from ocrmem.config import GateSection
from ocrmem.errors import MissingInputError
from ocrmem.evaluation.result import EVALUATION
from ocrmem.json_files import Evaluation

_FIGURES = {  # that the bounds of ``register.gate`` are about
    "min_recall": ("memory", "recall"),
    "min_said": ("memory", "said"),
    "max_shuffled_recall": ("shuffled", "recall"),
    "max_shuffled_said": ("shuffled", "said"),
    "max_no_memory_recall": ("no_memory", "recall"),
}


@dataclass(frozen=True)
class GateLine:
    """One demand of the gate: ``metric`` was ``value`` and had to be ``relation`` ``bound``."""

    metric: str
    value: float
    relation: str
    bound: float
    setting: str  # the field of ``register.gate`` that holds the bound

    @property
    def ok(self) -> bool:
        # NaN fails both comparisons, so it never passes.
        return self.value >= self.bound if self.relation == ">=" else self.value <= self.bound

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        return f"{self.metric} = {self.value:.4g}, wanted {self.relation} {self.bound:.4g}"


def gate_lines(evaluation: Evaluation, gate: GateSection) -> list[GateLine]:
    """Compare the gate's demands with what an evaluation found.

    Args:
        evaluation: its ``warnings`` are those of the dataset and its own.

    Raises:
        MissingInputError: the gate asks for a figure that the evaluation, of an earlier ocrmem, does not have.
    """
    lines = []
    for setting, bound in gate.bounds().items():
        variant, figure = _FIGURES[setting]
        value = _there(cast(dict[str, Any], evaluation)[variant], figure, f"{variant}.{figure}", setting)
        relation = ">=" if setting.startswith("min") else "<="
        lines.append(GateLine(f"{variant}.{figure}", value, relation, bound, setting))
    gain = evaluation["shuffled"]["loss"] - evaluation["memory"]["loss"]
    lines.append(GateLine("shuffled.loss - memory.loss", gain, ">=", gate.min_loss_gain, "min_loss_gain"))
    if gate.max_warnings is not None:
        count = len(_there(evaluation, "warnings", "warnings", "max_warnings"))
        lines.append(GateLine("warnings", count, "<=", gate.max_warnings, "max_warnings"))
    return lines


def _there(values: Mapping[str, Any], key: str, name: str, setting: str) -> Any:
    if key not in values:
        message = f"has no {name}, which register.gate.{setting} bounds: an earlier ocrmem wrote it"
        raise MissingInputError.of(EVALUATION, message, "Run `ocrmem evaluate` again")
    return values[key]

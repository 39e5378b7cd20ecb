"""The gate: what an evaluation must show before an adapter may carry the registry's alias."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ocrmem.config import GateSection
from ocrmem.json_files import Evaluation, VariantFigures


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
    """Compare the gate's demands with what an evaluation found."""

    def recall(variant: str, figures: VariantFigures, relation: str, setting: str) -> GateLine:
        return GateLine(f"{variant}.recall", figures["recall"], relation, getattr(gate, setting), setting)

    memory, shuffled, no_memory = evaluation["memory"], evaluation["shuffled"], evaluation["no_memory"]
    gain = shuffled["loss"] - memory["loss"]
    return [
        recall("memory", memory, ">=", "min_recall"),
        recall("shuffled", shuffled, "<=", "max_shuffled_recall"),
        recall("no_memory", no_memory, "<=", "max_no_memory_recall"),
        GateLine("shuffled.loss - memory.loss", gain, ">=", gate.min_loss_gain, "min_loss_gain"),
    ]

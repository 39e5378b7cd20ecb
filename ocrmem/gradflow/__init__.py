"""The gradient-flow doctor: where an autograd chain is cut, why, and what to do.

    report = gradflow.check(model, batch, trainable="proj")
    gradflow.assert_flows(model, batch, trainable="proj")

Works on any ``nn.Module`` with frozen and trained parts whose forward returns a loss. Needs torch and jinja2, and
nothing else of ocrmem.
"""

from typing import TYPE_CHECKING, Any

from ocrmem.gradflow.batch_facts import BatchFacts
from ocrmem.gradflow.catalogue import CATALOGUE, Finding
from ocrmem.gradflow.check import GradientFlowError, assert_flows, check
from ocrmem.gradflow.report import Report

if TYPE_CHECKING:
    from ocrmem.gradflow.callback import GradientFlowCallback

__all__ = [
    "CATALOGUE",
    "BatchFacts",
    "Finding",
    "GradientFlowCallback",
    "GradientFlowError",
    "Report",
    "assert_flows",
    "check",
]


def __getattr__(name: str) -> Any:
    # The callback alone needs transformers, whose Trainer takes seconds to import.
    if name == "GradientFlowCallback":
        from ocrmem.gradflow.callback import GradientFlowCallback

        return GradientFlowCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

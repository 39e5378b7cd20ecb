"""The gradient-flow doctor: where an autograd chain is cut, why, and what to do.

    report = gradflow.check(model, batch, trainable="proj")
    gradflow.assert_flows(model, batch, trainable="proj")

Works on any ``nn.Module`` with frozen and trained parts whose forward returns a loss.
"""

from typing import TYPE_CHECKING, Any

from ocrmem.gradflow.catalogue import CATALOGUE, Finding
from ocrmem.gradflow.check import assert_flows, check
from ocrmem.gradflow.report import Report

if TYPE_CHECKING:
    from ocrmem.gradflow.callback import GradientFlowCallback

__all__ = ["CATALOGUE", "Finding", "GradientFlowCallback", "Report", "assert_flows", "check"]


def __getattr__(name: str) -> Any:
    # transformers' Trainer takes seconds to import; only its callback needs it.
    if name == "GradientFlowCallback":
        from ocrmem.gradflow.callback import GradientFlowCallback

        return GradientFlowCallback
    raise AttributeError(f"module 'ocrmem.gradflow' has no attribute {name!r}")

"""The faults that the doctor knows: code, title, severity, and the remedy in one sentence.

Codes are stable: scripts and docs refer to them. A new fault gets the next free number; none is reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Fault:
    """An entry of the catalogue. Title and remedy may hold {module}, filled in with the trained module's path."""

    code: str
    title: str
    remedy: str
    severity: Severity = "error"


_FAULTS = (
    Fault("GF001", "the frozen encoder's output is an inference tensor",
        "Run the encoder under torch.no_grad() instead, or .clone() its output outside inference mode."),
    Fault("GF002", "the trained parameters are frozen", "Call {module}.requires_grad_(True) before training."),
    Fault("GF003", "{module} runs under no_grad", "Call {module} outside the torch.no_grad() block."),
    Fault("GF004", "{module} runs under inference_mode", "Call {module} outside the inference_mode() block."),
    Fault("GF005", "what follows {module} runs without autograd",
        "Freeze what follows with requires_grad_(False) and run it outside no_grad() and inference_mode()."),
    Fault("GF006", "the value is detached after {module}",
        "Pass {module}'s output on without detach(), .data or a copy."),
    Fault("GF007", "{module} takes no part in the loss", "Call {module} in forward, and use its result in the loss."),
    Fault("GF008", "a re-entrant checkpoint has no input that requires grad",
        "Use checkpoint(..., use_reentrant=False), or gradient_checkpointing_kwargs={{'use_reentrant': False}}."),
    Fault("GF009", "a re-entrant checkpoint hides the gradient in a container or closure",
        "Pass the tensor as a direct argument of checkpoint(), or use use_reentrant=False."),
    Fault("GF010", "detach().requires_grad_(True) makes backward succeed without reaching {module}",
        "Remove the detach() and the requires_grad_(True); they hide the cut and do not repair it."),
    Fault("GF011", "{module} was built in inference_mode",
        "Build the model outside inference_mode(), or replace its parameters by clones made outside."),
    Fault("GF012", "no label is supervised",
        "Check where labels are masked and truncated: the answer's tokens must keep theirs."),
    Fault("GF013", "features do not depend on the page",
        "Load trained weights into the encoder; a SAM config's default initializer_range, 1e-10, makes pages alike."),
    Fault("GF014", "two dtypes meet",
        "Run forward under torch.autocast, or cast {module} and the features to the model's dtype."),
    Fault("GF015", "something besides {module} is trainable", "Call requires_grad_(False) on everything but {module}."),
    Fault("GF016", "frozen parameters receive gradients",
        "Do not switch requires_grad during forward, and clear gradients left on frozen parameters."),
    Fault("GF017", "the gradient vanishes",
        "Check the named operation: a product with zero, a dead or saturated activation, a dropout of 1, a rounding."),
    Fault("GF018", "a value or gradient is not finite",
        "Check the named layer, its weights and what it takes; float16 overflows where bfloat16 does not."),
    Fault("GF019", "the chain from {module} passes an operation that has no gradient",
        "Keep the path from {module} to the loss in differentiable torch operations: no numpy, item() or argmax.",
    ),
    Fault("GF020", "a part of {module} is not used",
        "Call every layer of {module} in forward, or freeze the unused ones.", "warning"),
    Fault("GF021", "backward fails", "Read the evidence: a saved tensor was changed in place, or its graph was freed."),
    Fault("GF022", "the loss does not change with another page",
        "Make sure that the features depend on the page and that {module}'s output is not scaled to zero on its way."),
    Fault("GF023", "a tensor that autograd needs is changed in place",
        "Make a new tensor in place of the change; change weights outside of forward, under torch.no_grad()."),
)  # fmt: skip
CATALOGUE = {fault.code: fault for fault in _FAULTS}


@dataclass(frozen=True)
class Place:
    """A module's path, and ``file:line`` of the source there; both may be empty."""

    module: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.module or 'the model'} ({self.source})" if self.source else self.module or "the model"


@dataclass(frozen=True)
class Finding:
    """One cause, found in one run.

    Attributes:
        code, title, severity: from the catalogue.
        place: module path and ``file:line`` where the chain ends.
        evidence: what was measured.
        remedy: what to do, in one sentence.
        module, source: the two parts of ``place``.
    """

    code: str
    title: str
    severity: Severity
    place: str
    evidence: str
    remedy: str
    module: str
    source: str

    def __str__(self) -> str:
        return f"{self.place}: {self.code} {self.title}: {self.evidence}. {self.remedy}"


def finding(code: str, trained: str, at: Place, evidence: str, remedy: str | None = None) -> Finding:
    """Make a finding of the catalogue's fault ``code``.

    Args:
        trained: the trained module's path, for the texts.
        at: where the chain ends.
        evidence: what was measured, one sentence without a full stop.
        remedy: instead of the catalogue's, when the cause is known more precisely.
    """
    fault = CATALOGUE[code]
    title, usual = (text.format(module=trained) for text in (fault.title, fault.remedy))
    return Finding(code, title, fault.severity, str(at), evidence, remedy or usual, at.module, at.source)

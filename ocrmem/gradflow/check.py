"""``gradflow.check``: run one instrumented forward and backward pass and diagnose it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ocrmem.gradflow.batch_facts import batch_facts, inputs_differ
from ocrmem.gradflow.catalogue import Finding
from ocrmem.gradflow.diagnosis import Diagnosis
from ocrmem.gradflow.probe import Probe, place_of
from ocrmem.gradflow.report import Report

Trainable = str | Sequence[str]
_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine", "OptimizedModule")


class GradientFlowError(Exception):
    """Gradients do not flow as they should.

    Attributes:
        findings: one for each cause; the message has one line for each.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(map(str, findings)))
        self.findings = list(findings)


def check(
    model: nn.Module,
    batch: Mapping[str, Any],
    trainable: Trainable = "proj",
    *,
    distinct_memories: bool = False,
    longest_history: int | None = None,
) -> Report:
    """Find out whether gradients reach the trained part and nothing else, and if not, where and why.

    Runs one forward and one backward pass of ``batch``. Gradients, buffers, random state and training flags are
    restored afterwards, and no tensor is kept.

    Args:
        model: its forward takes ``**batch`` and returns an object or dict with ``loss``.
        batch: keyword arguments of forward.
        trainable: dotted path of the module that is to be trained, or several; a bare name such as ``proj`` also
            finds ``model.proj``.
        distinct_memories: the samples of the batch are known to have different pages, so equal features are
            a fault even where the batch alone does not show it.
        longest_history: tokens of the longest history in the data, for the reason why there is no memory.

    Raises:
        ValueError: no parameter lies under ``trainable``, or forward returns no loss.
    """
    inner = unwrapped(model)
    paths = tuple(resolved(inner, path) for path in ([trainable] if isinstance(trainable, str) else trainable))
    facts = batch_facts(inner, batch)
    facts.distinct |= distinct_memories
    facts.longest_history = longest_history
    sharded = type(model).__name__ == "DeepSpeedEngine"
    recording = Probe(inner, paths, facts, sharded=sharded).run(batch)
    if not (facts.distinct or inputs_differ(batch)):
        recording.page_dependence = None  # of the same inputs in every row, equal features are right
    findings = Diagnosis(recording, facts, place_of(inner, paths[0])).findings()
    return Report(findings=findings, recording=recording, facts=facts, trained=paths)


def assert_flows(model: nn.Module, batch: Mapping[str, Any], trainable: Trainable = "proj", **options: Any) -> None:
    """Run `check` in a test.

    Raises:
        GradientFlowError: names place, evidence and remedy of each error found.
    """
    report = check(model, batch, trainable, **options)
    if not report.ok:
        raise GradientFlowError(report.errors)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, a DeepSpeed engine or a compiled wrapper."""
    while type(model).__name__ in _WRAPPERS:
        model = model.get_submodule("_orig_mod" if hasattr(model, "_orig_mod") else "module")
    return model


def resolved(model: nn.Module, path: str) -> str:
    """Return the full path of the module called ``path`` that holds parameters.

    Raises:
        ValueError: there is none.
    """
    modules = [name for name, _ in model.named_modules() if name]
    exact = [name for name in modules if name == path]
    for name in exact or [name for name in modules if name.endswith(f".{path}")]:
        if any(True for _ in model.get_submodule(name).parameters()):
            return name
    near = difflib.get_close_matches(path, modules, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"trainable={path!r}: no module of that name holds parameters{hint}")

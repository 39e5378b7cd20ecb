"""``gradflow.check``: one instrumented forward and backward pass, and what it means.

    report = gradflow.check(model, batch, trainable="proj")
    gradflow.assert_flows(model, batch, trainable="proj")      # in a test

Works on any ``nn.Module`` with frozen and trained parts whose forward returns a loss.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ocrmem.errors import CheckFailed, Problem
from ocrmem.gradflow.diagnose import Diagnosis
from ocrmem.gradflow.facts import batch_facts, inputs_differ
from ocrmem.gradflow.probe import Probe, source_around
from ocrmem.gradflow.report import Report

Trainable = str | Sequence[str]
_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine", "OptimizedModule")


def check(
    model: nn.Module,
    batch: Mapping[str, Any],
    trainable: Trainable = "proj",
    *,
    distinct_memories: bool = False,
    longest_history: int | None = None,
) -> Report:
    """Find out whether gradients reach the trained part and nothing else, and if not, where and why.

    One forward and one backward pass of ``batch``. Gradients, buffers, random state and training flags are as
    before afterwards, and no tensor is kept.

    Args:
        model: its forward takes ``**batch`` and returns an object or dict with ``loss``.
        batch: keyword arguments of forward.
        trainable: dotted path of the module that ought to train, or several; a bare name such as ``proj`` also
            finds ``model.proj``.
        distinct_memories: the samples of the batch are known to have different pages, so equal features are
            a fault even where the batch alone does not show it.
        longest_history: tokens of the longest history in the data, for the reason why there is no memory.

    Raises:
        ValueError: no parameter lies under ``trainable``, or forward returns no loss.
    """
    inner = unwrapped(model)
    paths = [resolved(inner, path) for path in ([trainable] if isinstance(trainable, str) else trainable)]
    facts = batch_facts(inner, batch, distinct=distinct_memories)
    facts.longest_history = longest_history
    sharded = type(model).__name__ == "DeepSpeedEngine"
    recording = Probe(inner, _under(paths), facts, sharded=sharded).run(batch)
    if recording.feature_spread is not None and not (facts.distinct or inputs_differ(batch)):
        # The inputs themselves are the same from row to row; equal features say nothing then.
        recording.feature_spread = None
    source = source_around(inner, paths[0])
    findings = Diagnosis(recording, facts, paths[0], source).findings()
    return Report(findings=findings, recording=recording, facts=facts, trained=tuple(paths))


def assert_flows(model: nn.Module, batch: Mapping[str, Any], trainable: Trainable = "proj", **options: Any) -> None:
    """`check`, for tests.

    Raises:
        CheckFailed: with one problem for each error found; its text names place, evidence and remedy.
    """
    report = check(model, batch, trainable, **options)
    if not report.ok:
        raise CheckFailed([as_problem(f) for f in report.findings if f.severity == "error"])


def as_problem(finding: Any) -> Problem:
    """A finding as the kind of problem that every verb reports."""
    return Problem(finding.place, f"{finding.code} {finding.title}: {finding.evidence}", finding.remedy.rstrip("."))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, a DeepSpeed engine or a compiled wrapper."""
    while type(model).__name__ in _WRAPPERS:
        model = model.get_submodule("_orig_mod" if hasattr(model, "_orig_mod") else "module")
    return model


def _under(paths: Sequence[str]) -> Callable[[str], bool]:
    return lambda name: any(name == path or name.startswith(f"{path}.") for path in paths)


def resolved(model: nn.Module, path: str) -> str:
    """The full path of the module or parameter called ``path``."""
    modules = [name for name, _ in model.named_modules() if name]
    names = [name for name, _ in model.named_parameters()]
    candidates = [m for m in modules if m == path] or [m for m in modules if m.endswith(f".{path}")]
    for candidate in candidates:
        if any(name.startswith(f"{candidate}.") for name in names):
            return candidate
    near = difflib.get_close_matches(path, modules, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"trainable={path!r}: no module of that name holds parameters{hint}")


__all__ = ["as_problem", "assert_flows", "check", "resolved", "unwrapped"]

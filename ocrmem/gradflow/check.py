"""``gradflow.check``: run one instrumented forward and backward pass and diagnose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ocrmem.gradflow.batch_facts import batch_facts, inputs_differ
from ocrmem.gradflow.catalogue import Finding
from ocrmem.gradflow.diagnosis import Diagnosis
from ocrmem.gradflow.model_state import initialise
from ocrmem.gradflow.parts import Part, Trainable, parts_of, uninitialised, unwrapped
from ocrmem.gradflow.probe import Probe, place_of
from ocrmem.gradflow.report import Report


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

    Runs one forward and one backward pass of ``batch``; a second of both where a gradient is zero, to see whether it
    only waits for a layer that starts at zero. Gradients, buffers, random state and training flags are restored
    afterwards, and no tensor is kept.

    Args:
        model: its forward takes ``**batch`` and returns an object or dict with ``loss``. Modules and parameters that
            the first forward makes are made.
        batch: keyword arguments of forward.
        trainable: dotted path of the module or parameter that is to be trained, or several; a bare name such as
            ``proj`` also finds ``model.proj`` if there is one only, and a pattern such as ``*.lora_*`` all that match.
        distinct_memories: the samples of the batch are known to have different pages, so equal features are
            a fault even where the batch alone does not show it.
        longest_history: tokens of the longest history in the data, for the reason why there is no memory.

    Raises:
        TypeError: ``model`` is no module, or ``batch`` no mapping.
        ValueError: no parameter lies under ``trainable``, or forward returns no loss of one element.
    """
    for name, given, kind in (("model", model, nn.Module), ("batch", batch, Mapping)):
        if not isinstance(given, kind):
            raise TypeError(f"gradflow.check: {name} is a {type(given).__name__}, not a {kind.__name__}")
    inner = unwrapped(model)
    parts, made = _parts_after_forward(inner, batch, trainable)
    facts = batch_facts(inner, batch)
    facts.distinct |= distinct_memories
    facts.longest_history = longest_history
    sharded = type(model).__name__ == "DeepSpeedEngine"
    recording = Probe(inner, parts, facts, sharded=sharded).run(batch)
    recording.notes += [*made, *(line for part in parts for line in part.tied)]
    if not (facts.distinct or inputs_differ(batch)):
        recording.page_dependence = None  # of the same inputs in every row, equal features are right
    places = [place_of(inner, part.paths[0]) for part in parts]
    findings = Diagnosis(recording, facts, parts, places).findings()
    return Report(findings=findings, recording=recording, facts=facts, parts=parts)


def assert_flows(model: nn.Module, batch: Mapping[str, Any], trainable: Trainable = "proj", **options: Any) -> None:
    """Run `check` in a test.

    Raises:
        GradientFlowError: names place, evidence and remedy of each error found.
    """
    report = check(model, batch, trainable, **options)
    if not report.ok:
        raise GradientFlowError(report.errors)


def _parts_after_forward(
    model: nn.Module, batch: Mapping[str, Any], trainable: Trainable
) -> tuple[tuple[Part, ...], list[str]]:
    """Find the parts, after a first forward pass if modules or parameters wait for one; with a note that says so."""
    if not uninitialised(model):
        try:
            return parts_of(model, trainable), []
        except ValueError:
            before = {name for name, _ in model.named_parameters()}
            try:
                initialise(model, batch)
            except Exception:  # noqa: BLE001  # a model's own; the wrong name is told, not what forward says on top
                parts_of(model, trainable)
            if before == {name for name, _ in model.named_parameters()}:
                raise
    else:
        initialise(model, batch)
    note = "a first forward pass made parameters: make the optimizer after one, or it will not hold them"
    return parts_of(model, trainable), [note]

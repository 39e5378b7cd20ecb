"""Turn a recording into findings: one for each cause, the nearest cause first.

The rules run in the order in which one fault hides another: what is wrong with the parameters themselves, what the
batch lacks, what keeps forward from finishing, where a part's chain is cut, what the gradients are like.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ocrmem.gradflow.batch_facts import BatchFacts
from ocrmem.gradflow.catalogue import Finding, Place, finding
from ocrmem.gradflow.part_diagnosis import PartDiagnosis, listed
from ocrmem.gradflow.parts import Part, is_under
from ocrmem.gradflow.probe import ModuleCall, Parameter, Recording

SAME_FEATURES = 1e-4  # relative difference under which two pages' features count as the same


class Diagnosis:
    """Apply the rules to one recording; ``places`` are those of the trained parts' forwards."""

    def __init__(self, recording: Recording, facts: BatchFacts, parts: Sequence[Part], places: Sequence[Place]) -> None:
        self._record = recording
        self._facts = facts
        self._trained = ", ".join(part.label for part in parts)
        self._parts = [
            PartDiagnosis(recording, facts, index, part, place)
            for index, (part, place) in enumerate(zip(parts, places, strict=True))
        ]

    def findings(self) -> list[Finding]:
        record = self._record
        besides = [p for p in record.parameters if p.requires_grad and not p.trained]
        found = [*self._at_parameters("GF015", besides, "requires_grad is True on {}")]
        found += [finding for part in self._parts for finding in part.parameters()]
        found += self._labels()
        if record.forward_error:
            return [*self._forward_failed(bool(found)), *found]
        chains = [finding for part in self._parts for finding in part.chain()]
        found += chains
        if self._facts.supervised_labels != 0:
            broken = [*self._not_finite(), *self._backward_failed(bool(chains))][:1]
            found += broken or [finding for part in self._parts for finding in part.gradients()]
        frozen = [p for p in record.parameters if not (p.trained or p.requires_grad)]
        reached = [p for p in frozen if p.gradient_norm is not None or p.requires_grad_after]
        return [*found, *self._at_parameters("GF016", reached, "a gradient arrived at {}"), *self._features()]

    def _finding(self, code: str, evidence: str, at: Place, remedy: str | None = None) -> Finding:
        return finding(code, self._trained, at, evidence, remedy)

    def _at_parameters(self, code: str, having: list[Parameter], evidence: str) -> Iterator[Finding]:
        if having:
            yield self._finding(code, evidence.format(listed(having)), Place(having[0].name.rpartition(".")[0]))

    def _labels(self) -> Iterator[Finding]:
        if self._facts.supervised_labels == 0:
            failed = self._record.forward_error
            result = f"forward refused: {failed}" if failed else f"the loss is {self._record.loss}"
            yield self._finding("GF012", f"all labels of the batch are -100 and {result}", Place("labels"))

    def _forward_failed(self, explained: bool) -> Iterator[Finding]:
        record = self._record
        at, error, kind = record.failing_place, record.forward_error, record.forward_error_kind
        evidence = f"forward failed in {at.module or 'the model'}: {error}"
        if kind == "dtype":
            weights = ", ".join(sorted({p.dtype for p in record.parameters if is_under(p.name, [at.module])}))
            inputs = ", ".join(record.failing_dtypes) or "unknown"
            yield self._finding("GF014", f"input is {inputs}, weights are {weights or 'unknown'}: {error}", at)
        elif kind == "in place":
            yield self._finding("GF023", evidence, at)
        elif not explained:
            for operation, made in record.observed.inference_tensors[:1]:
                evidence, at = f"{operation}() made it in inference mode; {evidence}", made
            yield self._finding("GF001", evidence, at)

    def _not_finite(self) -> Iterator[Finding]:
        record = self._record
        if record.loss is not None and not math.isfinite(record.loss):
            yield self._loss_not_finite()
        elif broken := [p for p in record.trained if not p.finite]:
            evidence = f"the gradient of {listed(broken)} is not finite"
            at = record.observed.last_reached(-1, math.isfinite)
            if at is None:
                yield self._finding("GF018", evidence, self._parts[broken[0].part or 0].place)
                return
            evidence += f"; it still is at the result of {at.name}"
            remedy = f"Keep {at.name} away from where its derivative is infinite, as that of a root or a norm is at 0."
            yield self._finding("GF018", evidence, at.place, remedy)

    def _loss_not_finite(self) -> Finding:
        record, loss = self._record, f"the loss is {self._record.loss}"
        if record.broken_inputs:
            names = ", ".join(repr(name) for name in record.broken_inputs)
            remedy = "Mend the data: look for the sample that holds NaN or infinity."
            return self._finding(
                "GF018", f"the input {names} is not finite and {loss}", Place(record.broken_inputs[0]), remedy
            )
        broken = [call for call in record.calls if not call.output_finite]
        innermost = ([call for call in broken if call.input_finite] or broken)[-1:]
        weights = [name for name in record.broken_weights if is_under(name, [call.path for call in innermost])]
        if weights and innermost:
            remedy = "Load or initialise these weights again; a step that was too large may have left them so."
            return self._finding(
                "GF018", f"{', '.join(weights[:3])} is not finite and {loss}", innermost[0].place, remedy
            )
        operation = next((o for o in record.observed.operations if not o.finite), None)
        if operation and operation.inputs_finite and self._within(operation.place, innermost):
            evidence = f"the result of {operation.name} is not finite, though its inputs are, and {loss}"
            remedy = f"Keep what {operation.name} takes within the range where its result is finite."
            return self._finding("GF018", evidence, operation.place, remedy)
        if innermost:
            return self._finding("GF018", f"its output is not finite and {loss}", innermost[0].place)
        return self._finding("GF018", loss, Place("loss"))

    def _within(self, place: Place, calls: list[ModuleCall]) -> bool:
        return all(not call.path or is_under(place.module, [call.path]) for call in calls)

    def _backward_failed(self, cut: bool) -> Iterator[Finding]:
        record = self._record
        if record.backward_error and record.loss_requires_grad and not cut:
            at = record.observed.last_reached(-1, lambda gradient: True)
            evidence = record.backward_error if at is None else f"in the backward of {at.name}: {record.backward_error}"
            place = record.backward_place or (at.place if at else Place("loss"))
            yield self._finding("GF021", evidence, place)

    def _features(self) -> Iterator[Finding]:
        dependence, module = self._record.page_dependence, self._record.feature_module
        if dependence is not None and dependence < SAME_FEATURES:
            evidence = f"features at {module} differ by {dependence:.1e} of their size from page to page"
            yield self._finding("GF013", evidence, Place(module))

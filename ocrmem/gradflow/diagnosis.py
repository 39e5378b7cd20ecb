"""Turn a recording into findings: one for each cause, the nearest cause first.

The rules run in the order in which one fault hides another: what keeps forward from finishing, what is wrong
with the parameters themselves, what the batch lacks, where the chain is cut, what the gradients are like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from ocrmem.gradflow.batch_facts import BatchFacts
from ocrmem.gradflow.catalogue import Finding, Place, finding
from ocrmem.gradflow.probe import Parameter, Recording, is_under
from ocrmem.gradflow.trace import Cut

SAME_FEATURES = 1e-4  # relative difference under which two pages' features count as the same
VANISHED = 1e-10  # of the largest gradient on the way

# Faults of single parameters: which have it, and the evidence with their names for {}.
_PARAMETER_RULES: dict[str, tuple[Callable[[Parameter], bool], str]] = {
    "GF015": (lambda p: p.requires_grad and not p.trained, "requires_grad is True on {}"),
    "GF011": (lambda p: p.trained and p.is_inference, "{} are inference tensors, which never get a gradient"),
    "GF002": (lambda p: p.trained and not (p.requires_grad or p.is_inference), "requires_grad is False on {}"),
    "GF020": (lambda p: p.trained and not p.used, "{} took no part in forward"),
    "GF019": (
        lambda p: p.trained and p.used and p.gradient_norm is None,
        "backward left no gradient on {} and raised no error",
    ),
    "GF016": (
        lambda p: not (p.trained or p.requires_grad) and (p.gradient_norm is not None or p.requires_grad_after),
        "a gradient arrived at {}",
    ),
}


class Diagnosis:
    """Apply the rules to one recording; ``trained`` is the module that is to be trained, and its forward."""

    def __init__(self, recording: Recording, facts: BatchFacts, trained: Place) -> None:
        self._record = recording
        self._facts = facts
        self._at_trained = trained
        self._trained = trained.module

    def findings(self) -> list[Finding]:
        found = [*self._parameters("GF015", "GF011", "GF002"), *self._labels()]
        if self._record.forward_error:
            return [*self._forward_failed(bool(found)), *found]
        took_part = list(self._took_no_part())
        found += took_part or [*self._cuts(), *self._parameters("GF020")]
        if not any(f.severity == "error" and f.code != "GF015" for f in found):
            found += self._gradients()
        found += [*self._parameters("GF016"), *self._features()]
        # Several layers of one module under one no_grad are one cause; the first place is where it begins.
        return list({f.code: f for f in reversed(found)}.values())[::-1]

    def _finding(self, code: str, evidence: str, at: Place | None = None, remedy: str | None = None) -> Finding:
        return finding(code, self._trained, at or self._at_trained, evidence, remedy)

    def _parameters(self, *codes: str) -> Iterator[Finding]:
        """Apply these rules of parameters, each at the module that holds the first parameter it concerns."""
        for code in codes:
            concerned, evidence = _PARAMETER_RULES[code]
            having = [p for p in self._record.parameters if concerned(p)]
            if having:
                at = None if having[0].trained else Place(having[0].name.rpartition(".")[0])
                yield self._finding(code, evidence.format(_names(having)), at)

    def _forward_failed(self, explained: bool) -> Iterator[Finding]:
        record = self._record
        at, error = record.failing_place, record.forward_error
        if record.forward_error_kind == "dtype":
            weights = ", ".join(sorted({p.dtype for p in record.parameters if p.name.startswith(at.module)}))
            inputs = ", ".join(record.failing_dtypes) or "unknown"
            yield self._finding("GF014", f"input is {inputs}, weights are {weights}: {error}", at)
        elif not explained:
            evidence = f"forward failed in {at.module}: {error}"
            for operation, made in record.observed.inference_tensors[:1]:
                evidence, at = f"{operation}() made it in inference mode; {evidence}", made
            yield self._finding("GF001", evidence, at)

    def _labels(self) -> Iterator[Finding]:
        if self._facts.supervised_labels == 0:
            failed = self._record.forward_error
            result = f"forward refused: {failed}" if failed else f"the loss is {self._record.loss}"
            yield self._finding("GF012", f"all labels of the batch are -100 and {result}", Place("labels"))

    def _took_no_part(self) -> Iterator[Finding]:
        if any(p.used for p in self._record.trained) and self._facts.memory_tokens != 0:
            return
        called = any(call.path == self._trained for call in self._record.calls)
        reason, remedy = self._why_no_part()
        how = "called on zeros only" if called else "never called"
        yield self._finding("GF007", f"{self._trained.rpartition('.')[2]} {how}: {reason}", remedy=remedy)

    def _why_no_part(self) -> tuple[str, str | None]:
        facts = self._facts
        threshold, limit, longest = facts.context_threshold, facts.max_seq_length, facts.longest_history
        if threshold is not None and longest is not None and longest <= threshold:
            return (
                f"no history exceeds context_threshold (longest {longest} tokens, threshold {threshold})",
                f"Set context_threshold below {longest}, or use longer conversations.",
            )
        if threshold is not None and limit is not None and threshold >= limit:
            return (
                f"no history exceeds context_threshold ({threshold}), as samples are cut to max_seq_length ({limit})",
                f"Set context_threshold well below max_seq_length ({limit}).",
            )
        if facts.sequence_length is not None and facts.sequence_length == limit and longest is not None:
            return (
                f"truncation to max_seq_length ({limit}) leaves no memory tokens in the sequence",
                "Raise max_seq_length, or cut text from the left and never the memory.",
            )
        return "no memory in the batch", None

    def _cuts(self) -> Iterator[Finding]:
        record, lineage = self._record, self._record.loss_lineage
        wanted = sum(
            1 << index for index, p in enumerate(record.trained) if p.used and p.requires_grad and not p.is_inference
        )
        missing = wanted & ~lineage.alive
        for mask, place in record.observed.repairs:
            if mask & missing:
                missing &= ~mask
                cut = next((c for m, c in lineage.cuts if m & mask), None)
                lost = f" after {cut.operation} at {cut.place}" if cut else ""
                evidence = f"requires_grad_(True){lost} starts a new graph: loss.requires_grad is True, "
                evidence += f"but no gradient reaches {self._trained}"
                yield self._finding("GF010", evidence, place)
        for mask, cut in lineage.cuts:
            if mask & missing:
                missing &= ~mask
                yield self._cut(cut)
        if missing:
            yield self._lost(missing)

    def _cut(self, cut: Cut) -> Finding:
        mode = "inference mode" if cut.inference else "grad mode on" if cut.grad_enabled else "grad mode off"
        evidence = f"{cut.operation} was called with {mode} and its result does not require grad"
        if cut.checkpoint == "reentrant":
            code = "GF009" if cut.hidden else "GF008"
            evidence += ", inside checkpoint(..., use_reentrant=True)"
        elif cut.inference or not cut.grad_enabled:
            within = is_under(cut.place.module, [self._trained])
            code = ("GF004" if cut.inference else "GF003") if within else "GF005"
            around = (c for c in self._record.calls if c.path and is_under(cut.place.module, [c.path]))
            off = next((c.path for c in around if not c.grad_enabled), None)
            evidence += f"; autograd is off from {off} inwards" if off else ""
        else:
            code = "GF006"
        return self._finding(code, evidence, cut.place)

    def _lost(self, missing: int) -> Finding:
        cut = next((c for mask, c in reversed(self._record.observed.cuts) if mask & missing), None)
        if cut is not None:
            return self._finding("GF019", f"after {cut.operation} its value continued outside torch", cut.place)
        depending = [c.place for c in self._record.calls if c.output_depends & missing]
        last = depending[-1] if depending else self._at_trained
        return self._finding(
            "GF019", f"{last.module or 'the model'} is the last module whose output depends on it", last
        )

    def _gradients(self) -> Iterator[Finding]:
        record = self._record
        found = [*self._not_finite()]
        if not found and record.backward_error:
            found = [self._finding("GF021", record.backward_error, Place(record.loss_grad_fn))]
        yield from found or [*self._parameters("GF019")] or self._vanished()

    def _vanished(self) -> Iterator[Finding]:
        norms = [p.gradient_norm for p in self._record.trained if p.gradient_norm is not None]
        largest = max((c.gradient_norm for c in self._record.calls if c.gradient_norm), default=0.0)
        if norms and max(norms) <= VANISHED * largest:
            gone = [
                c.place
                for c in self._record.calls
                if c.gradient_norm is not None and c.gradient_norm <= VANISHED * largest
            ]
            evidence = f"{self._trained}'s largest gradient is {max(norms):.1e} beside {largest:.1e} nearer the loss"
            # Nearest the loss, and innermost.
            yield self._finding("GF017", evidence, gone[-1] if gone else None)

    def _not_finite(self) -> Iterator[Finding]:
        record = self._record
        finite_loss = record.loss is not None and math.isfinite(record.loss)
        calls = [c for c in record.calls if not c.output_finite]
        broken = [p for p in record.trained if not p.finite]
        if calls and not finite_loss:
            innermost = [c for c in calls if c.input_finite] or calls[:1]
            evidence = f"its output is not finite and the loss is {record.loss}"
            yield self._finding("GF018", evidence, innermost[-1].place)
        elif broken:
            gradients = [c.place for c in record.calls if not math.isfinite(c.gradient_norm or 0.0)]
            evidence = f"the gradient of its output is not finite, and neither is that of {_names(broken)}"
            yield self._finding("GF018", evidence, gradients[-1] if gradients else None)
        elif record.loss is not None and not finite_loss:
            yield self._finding("GF018", f"the loss is {record.loss}", Place("loss"))

    def _features(self) -> Iterator[Finding]:
        dependence, module = self._record.page_dependence, self._record.feature_module
        if dependence is not None and dependence < SAME_FEATURES:
            evidence = f"features at {module} differ by {dependence:.1e} of their size from page to page"
            yield self._finding("GF013", evidence, Place(module))


def _names(parameters: list[Parameter]) -> str:
    more = f" and {len(parameters) - 3} more" if len(parameters) > 3 else ""
    return ", ".join(p.name for p in parameters[:3]) + more

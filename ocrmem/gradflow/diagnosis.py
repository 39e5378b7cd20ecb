"""Turn a recording into findings: one for each cause, the nearest cause first.

The rules run in the order in which one fault hides another: what keeps forward from finishing, what is wrong
with the parameters themselves, what the batch lacks, where the chain is cut, what the gradients are like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from ocrmem.gradflow.batch_facts import BatchFacts
from ocrmem.gradflow.catalogue import Finding, finding
from ocrmem.gradflow.probe import Parameter, Recording, is_under
from ocrmem.gradflow.trace import Cut

SAME_FEATURES = 1e-4  # relative difference under which two pages' features count as the same
VANISHED = 1e-10  # of the largest gradient on the way


class Diagnosis:
    """The rules, over one recording.

    Args:
        recording: what `Probe` recorded.
        facts: what the batch holds.
        trained: path of the module that is to be trained.
        source: ``file:line`` of that module's forward.
    """

    def __init__(self, recording: Recording, facts: BatchFacts, trained: str, source: str) -> None:
        self._record = recording
        self._facts = facts
        self._trained = trained
        self._source = source

    def findings(self) -> list[Finding]:
        found = [*self._extra_trainable(), *self._built_in_inference_mode(), *self._frozen()]
        found += self._labels()
        if self._record.forward_error:
            return [*self._forward_failed(bool(found)), *found]
        took_part = list(self._took_no_part())
        found += took_part
        if not took_part:
            found += [*self._cuts(), *self._unused_parts()]
        if not any(f.severity == "error" and f.code != "GF015" for f in found):
            found += self._gradients()
        found += [*self._received_by_frozen(), *self._features()]
        # Several layers of one module under one no_grad are one cause; the first place is where it begins.
        return list({f.code: f for f in reversed(found)}.values())[::-1]

    def _at_trained(self, code: str, evidence: str, remedy: str | None = None) -> Finding:
        return self._finding(code, self._trained, self._source, evidence, remedy)

    def _finding(self, code: str, module: str, source: str, evidence: str, remedy: str | None = None) -> Finding:
        return finding(code, trained=self._trained, module=module, source=source, evidence=evidence, remedy=remedy)

    def _forward_failed(self, explained: bool) -> Iterator[Finding]:
        record = self._record
        source = record.failing_place.source if record.failing_place else ""
        if record.forward_error_kind == "dtype":
            weights = sorted({p.dtype for p in record.parameters if p.name.startswith(record.failing_module)})
            yield self._finding(
                "GF014",
                record.failing_module,
                source,
                f"input is {', '.join(record.failing_dtypes) or 'unknown'}, weights are {', '.join(weights)}: "
                f"{record.forward_error}",
            )
        elif not explained:
            origin = next(iter(record.observed.inference_tensors), None)
            evidence = f"forward failed in {record.failing_module}: {record.forward_error}"
            if origin is not None:
                operation, made = origin
                evidence = f"{operation}() made it in inference mode; {evidence}"
                yield self._finding("GF001", made.module, made.source, evidence)
            else:
                yield self._finding("GF001", record.failing_module, source, evidence)

    def _built_in_inference_mode(self) -> Iterator[Finding]:
        built = [p.name for p in self._record.trained if p.is_inference]
        if built:
            yield self._at_trained("GF011", f"{_some(built)} are inference tensors, which never get a gradient")

    def _frozen(self) -> Iterator[Finding]:
        frozen = [p.name for p in self._record.trained if not p.requires_grad and not p.is_inference]
        if frozen:
            yield self._at_trained("GF002", f"requires_grad is False on {_some(frozen)}")

    def _extra_trainable(self) -> Iterator[Finding]:
        extra = [p for p in self._record.parameters if p.requires_grad and not p.trained]
        if extra:
            module = extra[0].name.rpartition(".")[0]
            yield self._finding("GF015", module, "", f"requires_grad is True on {_some([p.name for p in extra])}")

    def _labels(self) -> Iterator[Finding]:
        if self._facts.supervised_labels == 0:
            record = self._record
            failed = record.forward_error
            result = f"forward refused: {failed}" if failed else f"the loss is {record.loss}"
            yield self._finding("GF012", "labels", "", f"all labels of the batch are -100 and {result}")

    def _took_no_part(self) -> Iterator[Finding]:
        facts = self._facts
        called = any(call.path == self._trained for call in self._record.calls)
        used = any(parameter.used for parameter in self._record.trained)
        if used and facts.memory_tokens != 0:
            return
        reason, remedy = self._why_no_part(facts)
        how = "called on zeros only" if called else "never called"
        yield self._at_trained("GF007", f"{_leaf(self._trained)} {how}: {reason}", remedy)

    def _why_no_part(self, facts: BatchFacts) -> tuple[str, str | None]:
        threshold, limit = facts.context_threshold, facts.max_seq_length
        longest = facts.longest_history
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
        lineage = self._record.loss_lineage
        wanted = _mask(self._record.trained, lambda p: p.used and p.requires_grad and not p.is_inference)
        missing = wanted & ~lineage.alive
        if not missing:
            return
        for mask, place in self._record.observed.repairs:
            if mask & missing:
                missing &= ~mask
                cut = next((c for m, c in lineage.cuts if m & mask), None)
                lost = f" after {cut.operation} at {cut.place}" if cut else ""
                evidence = f"requires_grad_(True){lost} starts a new graph: loss.requires_grad is True, "
                evidence += f"but no gradient reaches {self._trained}"
                yield self._finding("GF010", place.module, place.source, evidence)
        for mask, cut in lineage.cuts:
            if mask & missing:
                missing &= ~mask
                yield self._cut(cut)
        if missing:
            yield self._lost(missing)

    def _cut(self, cut: Cut) -> Finding:
        within = is_under(cut.place.module, [self._trained])
        mode = "inference mode" if cut.inference else "grad mode off" if not cut.grad_enabled else "grad mode on"
        evidence = f"{cut.operation} was called with {mode} and its result does not require grad"
        if cut.checkpoint == "reentrant":
            code = "GF009" if cut.hidden else "GF008"
            evidence += ", inside checkpoint(..., use_reentrant=True)"
        elif cut.inference or not cut.grad_enabled:
            code = ("GF004" if cut.inference else "GF003") if within else "GF005"
            around = (c for c in self._record.calls if c.path and is_under(cut.place.module, [c.path]))
            off = next((c.path for c in around if not c.grad_enabled), None)
            evidence += f"; autograd is off from {off} inwards" if off else ""
        else:
            code = "GF006"
        return self._finding(code, cut.place.module, cut.place.source, evidence)

    def _lost(self, missing: int) -> Finding:
        cut = next((c for mask, c in reversed(self._record.observed.cuts) if mask & missing), None)
        if cut is not None:
            evidence = f"after {cut.operation} its value continued outside torch"
            return self._finding("GF019", cut.place.module, cut.place.source, evidence)
        last = next((c for c in reversed(self._record.calls) if c.output_depends & missing), None)
        module, source = (last.path, last.source) if last else (self._trained, self._source)
        evidence = f"{module or 'the model'} is the last module whose output depends on it"
        return self._finding("GF019", module, source, evidence)

    def _unused_parts(self) -> Iterator[Finding]:
        unused = [p.name for p in self._record.trained if not p.used]
        if unused:
            yield self._at_trained("GF020", f"{_some(unused)} took no part in forward")

    def _gradients(self) -> Iterator[Finding]:
        trained = self._record.trained
        broken = self._not_finite()
        if broken is not None:
            yield broken
            return
        if self._record.backward_error:
            yield self._finding("GF021", self._record.loss_grad_fn, "", self._record.backward_error)
            return
        without = [p.name for p in trained if p.used and p.gradient_norm is None]
        if without:
            yield self._at_trained("GF019", f"backward left no gradient on {_some(without)} and raised no error")
            return
        norms = [p.gradient_norm for p in trained if p.gradient_norm is not None]
        largest = max((c.gradient_norm for c in self._record.calls if c.gradient_norm), default=0.0)
        if norms and max(norms) <= VANISHED * largest:
            gone = [
                c for c in self._record.calls if c.gradient_norm is not None and c.gradient_norm <= VANISHED * largest
            ]
            # Nearest the loss, and innermost.
            module, source = (gone[-1].path, gone[-1].source) if gone else (self._trained, self._source)
            evidence = f"{self._trained}'s largest gradient is {max(norms):.1e} beside {largest:.1e} nearer the loss"
            yield self._finding("GF017", module, source, evidence)

    def _not_finite(self) -> Finding | None:
        record = self._record
        forward = next((c for c in record.calls if not c.output_finite), None)
        if forward is not None and (record.loss is None or not math.isfinite(record.loss)):
            innermost = [c for c in record.calls if not c.output_finite and c.input_finite]
            call = innermost[-1] if innermost else forward
            evidence = f"its output is not finite and the loss is {record.loss}"
            return self._finding("GF018", call.path, call.source, evidence)
        if any(not p.finite for p in record.trained):
            broken = [c for c in record.calls if c.gradient_norm is not None and not math.isfinite(c.gradient_norm)]
            module, source = (broken[-1].path, broken[-1].source) if broken else (self._trained, self._source)
            names = _some([p.name for p in record.trained if not p.finite])
            evidence = f"the gradient of its output is not finite, and neither is that of {names}"
            return self._finding("GF018", module, source, evidence)
        if record.loss is not None and not math.isfinite(record.loss):
            return self._finding("GF018", "loss", "", f"the loss is {record.loss}")
        return None

    def _received_by_frozen(self) -> Iterator[Finding]:
        got = [
            p.name
            for p in self._record.parameters
            if not p.trained and not p.requires_grad and (p.gradient_norm is not None or p.requires_grad_after)
        ]
        if got:
            yield self._finding("GF016", got[0].rpartition(".")[0], "", f"a gradient arrived at {_some(got)}")

    def _features(self) -> Iterator[Finding]:
        dependence = self._record.page_dependence
        if dependence is not None and dependence < SAME_FEATURES:
            module = self._record.feature_module
            evidence = f"features at {module} differ by {dependence:.1e} of their size from page to page"
            yield self._finding("GF013", module, "", evidence)


def _mask(parameters: list[Parameter], wanted: Callable[[Parameter], bool]) -> int:
    return sum(1 << index for index, parameter in enumerate(parameters) if wanted(parameter))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _leaf(path: str) -> str:
    return path.rpartition(".")[2] or path

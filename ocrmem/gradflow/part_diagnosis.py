"""The rules about one trained part: is it to be trained, does it take part, where is its chain cut, is it dead?

What backward measured comes first: a parameter that received a gradient has no fault in its chain, whatever the trace
lost sight of. The trace explains the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ocrmem.gradflow.batch_facts import BatchFacts
from ocrmem.gradflow.catalogue import Finding, Place, finding
from ocrmem.gradflow.parts import Part, is_under
from ocrmem.gradflow.probe import Parameter, Recording
from ocrmem.gradflow.trace import Cut


class PartDiagnosis:
    """Apply the rules to the ``index``-th trained part; ``place`` is that of its forward."""

    def __init__(self, recording: Recording, facts: BatchFacts, index: int, part: Part, place: Place) -> None:
        self.place = place
        self._record = recording
        self._facts = facts
        self._part = part
        self._own = [p for p in recording.trained if p.part == index]
        # Those that can have a gradient; the others have findings of their own.
        self._able = [p for p in self._own if p.used and p.requires_grad and not p.is_inference]

    def parameters(self) -> Iterator[Finding]:
        """Look at the state of the parameters before forward."""
        inference = [p for p in self._own if p.is_inference]
        frozen = [p for p in self._own if not (p.requires_grad or p.is_inference)]
        if inference:
            yield self._finding("GF011", f"{listed(inference)} are inference tensors, which never get a gradient")
        if frozen:
            remedy = None
            if self._part.adapter:
                remedy = (
                    "Load the adapter to be trained (PeftModel.from_pretrained(..., is_trainable=True)), or call"
                    " requires_grad_(True) on these parameters alone: the base stays frozen."
                )
            yield self._finding("GF002", f"requires_grad is False on {listed(frozen)}", remedy=remedy)

    def chain(self) -> Iterator[Finding]:
        """Look for the places where the part's value is lost on its way to the loss."""
        idle = self._facts.memory_tokens == 0 and not any(p.gradient_norm for p in self._own)
        if self._own and (idle or not any(p.used for p in self._own)):
            reason, remedy = self._why_no_part()
            yield self._finding("GF007", reason, remedy=remedy)
            return
        # Several layers under one no_grad are one cause; the first place is where it begins.
        yield from {f.code: f for f in reversed([*self._cuts()])}.values()
        if unused := [p for p in self._own if not p.used]:
            yield self._finding("GF020", f"{listed(unused)} took no part in forward")

    def gradients(self) -> Iterator[Finding]:
        """Look for parameters that backward should have reached, and left without a gradient or with one of zero."""
        left_out = [p for p in self._able if p.gradient_norm is None and self._alive(p)]
        if left_out:
            at = self._record.observed.last_reached(self._mask(left_out), lambda gradient: True)
            evidence = f"backward left no gradient on {listed(left_out)} and raised no error"
            if at is None:
                yield self._finding("GF019", evidence)
            else:
                remedy = f"Let the backward of {at.name} return a gradient for every input that needs one."
                yield self._finding("GF019", f"{evidence}; it ends at {at.name}", at.place, remedy)
        elif self._facts.memory_tokens != 0:
            yield from self._dead()

    def _finding(self, code: str, evidence: str, at: Place | None = None, remedy: str | None = None) -> Finding:
        return finding(code, self._part.label, at or self.place, evidence, remedy)

    def _mask(self, parameters: Sequence[Parameter]) -> int:
        return sum(p.bit for p in parameters)

    def _alive(self, parameter: Parameter) -> bool:
        return bool(parameter.bit & self._record.loss_lineage.alive)

    def _why_no_part(self) -> tuple[str, str | None]:
        record, facts, label = self._record, self._facts, self._part.label
        called = any(is_under(call.path, self._part.paths) for call in record.calls)
        how = f"{label.rpartition('.')[2]} {'called on zeros only' if called else 'never called'}"
        if facts.memory_tokens or (facts.memory_tokens is None and facts.context_threshold is None):
            replaced = [p for p in self._own if p.replaced]
            if replaced:
                remedy = f"Make {label} once, before training, and not in forward."
                return f"forward put another parameter in the place of {listed(replaced)}", remedy
            if twin := self._twin():
                return f"{how}: {twin}, of the same shape, ran instead", f"Call {label} where forward calls {twin}."
            if self._part.adapter:
                return how, "Run forward outside of disable_adapter(), and with this adapter active."
            return ("its parameters took no part in forward" if called else how), None
        threshold, limit, longest = facts.context_threshold, facts.max_seq_length, facts.longest_history
        if threshold is not None and longest is not None and longest <= threshold:
            return (
                f"{how}: no history exceeds context_threshold (longest {longest} tokens, threshold {threshold})",
                f"Set context_threshold below {longest}, or use longer conversations."
                if longest
                else "Use conversations of several turns.",
            )
        if threshold is not None and limit is not None and threshold >= limit:
            reason = (
                f"no history exceeds context_threshold ({threshold}), as samples are cut to max_seq_length ({limit})"
            )
            return f"{how}: {reason}", f"Set context_threshold well below max_seq_length ({limit})."
        if facts.sequence_length is not None and facts.sequence_length == limit and longest is not None:
            return (
                f"{how}: truncation to max_seq_length ({limit}) leaves no memory tokens in the sequence",
                "Raise max_seq_length, or cut text from the left and never the memory.",
            )
        return f"{how}: no memory in the batch", "Give the batch at least one sample with memory."

    def _twin(self) -> str | None:
        """Return the path of a module of the same shape that ran."""
        wanted = self._shapes(self._part.paths[0])
        ran = dict.fromkeys(call.path for call in self._record.calls if call.path)
        others = (path for path in ran if not is_under(path, self._part.paths))
        return next((path for path in others if wanted and self._shapes(path) == wanted), None)

    def _shapes(self, path: str) -> dict[str, tuple[int, ...]]:
        return {
            p.name.removeprefix(f"{path}."): p.shape for p in self._record.parameters if p.name.startswith(f"{path}.")
        }

    def _cuts(self) -> Iterator[Finding]:
        record, lineage = self._record, self._record.loss_lineage
        missing = self._mask([p for p in self._able if p.gradient_norm is None and not self._alive(p)])
        for mask, place in record.observed.repairs:
            if mask & missing:
                missing &= ~mask
                cut = next((c for m, c in lineage.cuts if m & mask), None)
                lost = f" after {cut.operation} at {cut.place}" if cut else ""
                evidence = f"requires_grad_(True){lost} starts a new graph: loss.requires_grad is True, "
                evidence += f"but no gradient reaches {self._part.label}"
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
        elif cut.autograd_off:
            within = is_under(cut.place.module, self._part.paths)
            code = ("GF004" if cut.inference else "GF003") if within else "GF005"
            around = (c for c in self._record.calls if c.path and is_under(cut.place.module, [c.path]))
            off = next((c.path for c in around if not c.grad_enabled), None)
            evidence += f"; autograd is off from {off} inwards" if off else ""
        else:
            code = "GF006" if cut.detaches else "GF019"
            evidence += "" if cut.detaches else f": it is {cut.dtype}"
        return self._finding(code, evidence, cut.place)

    def _lost(self, missing: int) -> Finding:
        """Explain a value of which nothing arrives at the loss: it left torch, or it was not used."""
        record = self._record
        left = [d for d in record.observed.departures if d.lineage.all & missing]
        # A number alone is printed more often than computed with.
        carrying = [d for d in left if d.whole] or (left[-1:] if record.loss_is_number else [])
        for departure in carrying[:1]:
            cuts = [cut for mask, cut in departure.lineage.cuts if mask & missing and cut.autograd_off]
            if cuts and is_under(cuts[0].place.module, self._part.paths):
                return self._cut(cuts[0])
            evidence = f"after {departure.operation} its value continued outside torch"
            return self._finding("GF019", evidence, departure.place)
        took = [o for o in record.observed.operations if o.depends & missing][-1:]
        for operation in took:
            evidence = f"it ran, but its value does not reach the loss: {operation.name} is the last that took it"
            return self._finding("GF007", evidence, operation.place)
        return self._finding("GF007", "it ran, but its value does not reach the loss")

    def _dead(self) -> Iterator[Finding]:
        """Look for gradients of zero, or next to it, that stay so."""
        gone = [p for p in self._able if self._record.vanishes(p) and not p.waits]
        living = [p for p in self._able if p not in gone]
        dead = [p for p in gone if not any(_outweighs(other, p) for other in living)]
        if not dead:
            return
        mask = self._mask(dead)
        own, nearer = max(p.gradient_norm or 0.0 for p in dead), self._record.largest_gradient(mask)
        evidence = f"the largest gradient of {listed(dead)} is {own:.1e} beside {nearer:.1e} nearer the loss"
        at = self._record.observed.last_reached(mask, lambda gradient: gradient > self._record.negligible(mask))
        if at is None:
            yield self._finding("GF017", evidence)
        else:
            yield self._finding("GF017", f"{evidence}; it ends at {at.name}", at.place)


def listed(parameters: Sequence[Parameter]) -> str:
    """Return the first names, and the number of the others."""
    more = f" and {len(parameters) - 3} more" if len(parameters) > 3 else ""
    return ", ".join(p.name for p in parameters[:3]) + more


def _outweighs(living: Parameter, still: Parameter) -> bool:
    """Return whether a living weight speaks for a shift or scale beside it.

    What follows may not depend on a shift at all: softmax not on the bias of keys, batch norm not on that before it.
    """
    owner = still.name.rpartition(".")[0]
    return bool(owner) and living.name.rpartition(".")[0] == owner and len(living.shape) > len(still.shape)

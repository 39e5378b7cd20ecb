"""Run one instrumented forward and backward pass and record what happened.

The passes run on the model itself; its gradients, buffers, random state and hooks are restored afterwards.
Nothing that this module returns holds a tensor, so nothing of the passes stays in memory.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ocrmem.gradflow.batch_facts import BatchFacts, page_dependence, rows_differ
from ocrmem.gradflow.catalogue import Place
from ocrmem.gradflow.model_state import preserved, random_state, restore_random_state, stepped
from ocrmem.gradflow.parts import Part
from ocrmem.gradflow.trace import NOT_THE_CALLERS, Lineage, Observed, Trace, all_finite, norm_of, tensors_in

VANISHED = 1e-10  # of the largest gradient on the way
# Names of floating types in torch's messages, where two of them mean that two dtypes met.
_FLOATING = re.compile(r"\b(bfloat16|half|float16|float|float32|double|float64)\b")


@dataclass
class ModuleCall:
    """One call of one module in the forward pass; bit sets are of the trained parameters."""

    place: Place  # its path, and the source of the nearest forward that is not torch's
    kind: str  # its class
    depth: int
    grad_enabled: bool
    input_dtypes: tuple[str, ...]  # of its floating inputs
    input_finite: bool  # no NaN and no plus infinity
    output_finite: bool = True
    output_depends: int = 0  # bit set: its output's value depends on these
    output_alive: int = 0  # bit set: those of them that autograd still knows
    gradient_norm: float | None = None  # of its last output, if backward came by

    @property
    def path(self) -> str:
        return self.place.module


@dataclass
class Parameter:
    """The state of one parameter. ``gradient_norm`` is None where backward left no gradient."""

    name: str
    part: int | None  # which of the trained parts it belongs to
    bit: int  # its own in the bit sets of trained parameters
    shape: tuple[int, ...]
    requires_grad: bool
    is_inference: bool
    dtype: str
    used: bool = False
    replaced: bool = False  # after forward, another parameter has its name
    waits: bool = False  # its gradient is zero until another trained parameter has moved
    requires_grad_after: bool = False
    gradient_norm: float | None = None
    finite: bool = True

    @property
    def trained(self) -> bool:
        return self.part is not None


@dataclass
class Recording:
    """Everything that `Diagnosis` needs, without a tensor in it."""

    parameters: list[Parameter]
    observed: Observed
    calls: list[ModuleCall] = field(default_factory=list)
    broken_inputs: list[str] = field(default_factory=list)  # not finite; looked for only if the loss is not
    broken_weights: list[str] = field(default_factory=list)
    loss: float | None = None
    loss_is_number: bool = False  # forward returned a number, not a tensor
    loss_requires_grad: bool = False
    loss_grad_fn: str = ""  # name of the operation that made the loss; empty where autograd has none
    loss_lineage: Lineage = field(default_factory=Lineage)
    forward_error: str = ""
    forward_error_kind: str = ""
    failing_place: Place = field(default_factory=lambda: Place(""))
    failing_dtypes: tuple[str, ...] = ()
    backward_error: str = ""
    backward_place: Place | None = None  # the line of the caller's own backward that raised
    page_dependence: float | None = None
    feature_module: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def trained(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.trained]

    def largest_gradient(self, parameters: int) -> float:
        """Return the largest gradient between a set of parameters and the loss."""
        norms = (o.gradient for o in self.observed.operations if o.alive & parameters and o.gradient is not None)
        return max((norm for norm in norms if math.isfinite(norm)), default=0.0)

    def negligible(self, parameters: int) -> float:
        """Return the norm up to which a gradient is next to nothing beside those nearer the loss."""
        return VANISHED * self.largest_gradient(parameters)

    def vanishes(self, parameter: Parameter) -> bool:
        return parameter.gradient_norm is not None and parameter.gradient_norm <= self.negligible(parameter.bit)


class Probe:
    """Hooks on every module of ``model`` and a `Trace` of the parameters that are to be trained.

    Args:
        model: any module whose forward returns an object or dict with ``loss``.
        parts: what is to be trained.
        facts: what the batch holds, such as which rows of flat features belong together.
        sharded: an engine owns the parameters' gradients (DeepSpeed), so none may be accumulated behind its back.
    """

    def __init__(self, model: nn.Module, parts: Sequence[Part], facts: BatchFacts, *, sharded: bool) -> None:
        self._model = model
        self._facts = facts
        self._sharded = sharded
        # An adapter inside a layer works on whatever comes by: features are what whole trained modules take.
        self._entrances = {path for part in parts for path in part.paths if not part.adapter}
        self._parameters = dict(model.named_parameters())
        part_of = {name: index for index, part in reversed([*enumerate(parts)]) for name in part.parameters}
        order = {name: index for index, name in enumerate(name for name in self._parameters if name in part_of)}
        entries = [
            Parameter(
                name=name,
                part=part_of.get(name),
                bit=1 << order[name] if name in order else 0,
                shape=tuple(p.shape),
                requires_grad=p.requires_grad,
                is_inference=p.is_inference(),
                dtype=str(p.dtype),
            )
            for name, p in self._parameters.items()
        ]
        self._open: list[ModuleCall] = []
        bits = {self._parameters[entry.name]: entry.bit for entry in entries if entry.trained}
        self._trace = Trace(bits, lambda: self._open[-1].path if self._open else "")
        self._recording = Recording(entries, self._trace.observed)

    def run(self, batch: Mapping[str, Any]) -> Recording:
        """Run forward and backward once. Errors that the doctor can diagnose are recorded, others are raised.

        Where some trained parameter's gradient is zero and another's is not, both are run a second time after a small
        step of the latter: layers before one that starts at zero receive nothing until it has moved.
        """
        record = self._recording
        with preserved(self._model), _compiled_parts_run_eagerly(self._model, record):
            start = random_state(self._model)
            loss = self._forward(batch)
            gradients = {} if loss is None else self._backward(loss)
            del loss
            for entry, parameter in zip(record.parameters, self._parameters.values(), strict=True):
                entry.requires_grad_after = parameter.requires_grad
                gradient = gradients.get(entry.name, parameter.grad)
                if gradient is not None:
                    entry.gradient_norm = norm_of(gradient)
                    entry.finite = math.isfinite(entry.gradient_norm)
            used = self._trace.observed.used | record.loss_lineage.all
            for entry in record.trained:
                entry.used = bool(used & entry.bit) or entry.gradient_norm is not None
            if record.loss is not None and not math.isfinite(record.loss):
                self._find_not_finite(batch)
            del gradients
            self._step_and_run_again(batch, start)
        return record

    def _forward(self, batch: Mapping[str, Any]) -> torch.Tensor | None:
        handles = []
        for path, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(self._enter, path), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with self._trace.watching():
                output = self._model(**batch)
        except (RuntimeError, ValueError) as error:
            if not (_kind(error) or self._facts.supervised_labels == 0):
                raise
            self._note_failure(error)
            return None
        finally:
            for handle in handles:
                handle.remove()
        after = dict(self._model.named_parameters())
        for entry in self._recording.parameters:
            entry.replaced = after.get(entry.name) is not self._parameters[entry.name]
        loss = loss_of(output)
        self._recording.loss_is_number = isinstance(_loss_in(output), numbers.Real)
        return loss

    def _enter(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        floating = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
        with self._trace.paused():
            call = ModuleCall(
                place=place_of(self._model, path),
                kind=type(module).__name__,
                depth=len(self._open),
                grad_enabled=torch.is_grad_enabled(),
                input_dtypes=tuple(sorted({str(t.dtype) for t in floating})),
                input_finite=all_finite(floating),
            )
            if path in self._entrances:
                self._measure_dependence(path, floating)
        self._recording.calls.append(call)
        self._open.append(call)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = self._open.pop()
        with self._trace.paused():
            outputs = [t for t in tensors_in(output) if t.is_floating_point()]
            call.output_finite = all_finite(outputs)
            lineage = self._trace.lineage_of(outputs)
            call.output_depends, call.output_alive = lineage.all, lineage.alive
            if not lineage.all and call.depth == 1 and outputs and outputs[0].dim() >= 3:
                # The frozen encoder, page by page: further on, blank tokens are left out and places are lost.
                given = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
                if any(len(t) == len(outputs[0]) and rows_differ(t) for t in given if t.dim()):
                    self._measure_dependence(call.path, outputs[:1])
            for tensor in outputs:
                if tensor.requires_grad and not tensor.is_leaf:
                    tensor.register_hook(partial(_record_norm, call))

    def _measure_dependence(self, path: str, floating: list[torch.Tensor]) -> None:
        """Measure features by what the trained part takes, or else by the encoder's; some inputs may be constant."""
        record = self._recording
        with torch.no_grad():
            found = [value for t in floating if (value := page_dependence(t, self._facts)) is not None]
        known = record.page_dependence
        more = known is None or max(found, default=0.0) > known
        if found and (more if record.feature_module in self._entrances else known is None or floating[0].dim() >= 3):
            record.page_dependence, record.feature_module = max(found), path

    def _note_failure(self, error: Exception) -> None:
        record = self._recording
        record.forward_error, record.forward_error_kind = _first_line(error), _kind(error)
        record.failing_place = Place(self._open[-1].path if self._open else "", line_of(error))
        record.failing_dtypes = self._open[-1].input_dtypes if self._open else ()

    def _backward(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Read the loss and run backward; return the gradients that it does not leave on the parameters."""
        record = self._recording
        record.loss = float(loss.detach())
        record.loss_requires_grad = loss.requires_grad
        record.loss_grad_fn = loss.grad_fn.name() if loss.grad_fn else ""
        record.loss_lineage = self._trace.lineage_of(loss)
        if not loss.requires_grad:
            record.backward_error = "element 0 of tensors does not require grad and does not have a grad_fn"
            return {}
        try:
            if self._sharded:
                wanted = {name: p for name, p in self._parameters.items() if p.requires_grad}
                found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
                return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}
            loss.backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # a custom function's backward may raise anything
            record.backward_error = _first_line(error)
            record.backward_place = Place("", source) if (source := line_of(error, inside="backward")) else None
        return {}

    def _find_not_finite(self, batch: Mapping[str, Any]) -> None:
        weights = (*self._model.named_parameters(), *self._model.named_buffers())
        self._recording.broken_inputs = [n for n, value in batch.items() if not all_finite(tensors_in(value))]
        self._recording.broken_weights = [name for name, tensor in weights if not all_finite([tensor])]

    def _step_and_run_again(self, batch: Mapping[str, Any], start: Any) -> None:
        record = self._recording
        measured = [p for p in record.trained if p.gradient_norm is not None and p.finite]
        moving = [self._parameters[p.name] for p in measured if not record.vanishes(p)]
        still = [p for p in measured if record.vanishes(p)]
        if not (still and moving):
            return
        if self._sharded:
            names = ", ".join(p.name for p in still)
            record.notes.append(f"not known whether the zero gradients of {names} last: an engine owns the parameters")
            for entry in still:
                entry.waits = True
            return
        with stepped(moving):
            restore_random_state(start)
            try:
                loss_of(self._model(**batch)).backward()
            except Exception as error:  # noqa: BLE001  # what ran once may forbid a second time
                record.notes.append(
                    f"not known whether zero gradients last: a second pass failed: {_first_line(error)}"
                )
                for entry in still:
                    entry.waits = True
                return
            for entry in still:
                gradient = self._parameters[entry.name].grad
                entry.waits = gradient is not None and norm_of(gradient) > 1000 * (entry.gradient_norm or 0.0)


def loss_of(output: Any) -> torch.Tensor:
    """Return the ``loss`` of a forward's output: of an object or a dict, the first of a tuple, or the output itself.

    Raises:
        ValueError: there is none, or it has several elements.
    """
    loss = _loss_in(output)
    if isinstance(loss, numbers.Real):
        loss = torch.tensor(float(loss))
    if not isinstance(loss, torch.Tensor):
        raise ValueError("forward returned no loss: give the batch labels, and return an object or dict with `loss`")
    if loss.numel() != 1:
        raise ValueError(
            f"the loss has {loss.numel()} elements (shape {list(loss.shape)}): reduce it to one, as loss.mean() does"
        )
    return loss


def _loss_in(output: Any) -> Any:
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None and isinstance(output, tuple) and output:
        return output[0]
    return output if loss is None and isinstance(output, torch.Tensor | numbers.Real) else loss


def place_of(model: nn.Module, path: str) -> Place:
    """Return a module's or parameter's path with ``file:line`` of the forward of the nearest module around it.

    Torch's own classes are passed over, whose source helps nobody.
    """
    owner, _, last = path.rpartition(".")
    around = path if isinstance(getattr(model.get_submodule(owner), last, None), nn.Module) else owner
    while True:
        forward: Any = getattr(type(model.get_submodule(around)), "forward", None)
        code = getattr(inspect.unwrap(forward), "__code__", None)
        if code is not None and not code.co_filename.startswith(NOT_THE_CALLERS[0]):
            return Place(path, f"{code.co_filename}:{code.co_firstlineno}")
        if not around:
            return Place(path)
        around = around.rpartition(".")[0]


def line_of(error: BaseException, inside: str = "") -> str:
    """Return ``file:line`` of the last frame of an error that is neither torch's nor this package's.

    Args:
        inside: only of frames within a function of this name.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(NOT_THE_CALLERS)]
    if inside and inside not in {frame.name for frame in frames}:
        return ""
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _record_norm(call: ModuleCall, gradient: torch.Tensor | None) -> None:
    if gradient is not None:
        call.gradient_norm = norm_of(gradient)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _kind(error: Exception) -> str:
    text = str(error)
    if "inference tensor" in text.lower() or "inference_mode" in text:
        return "inference"
    if "in-place operation" in text or "modified inplace" in text:
        return "in place"
    types = set(_FLOATING.findall(text.lower()))
    return "dtype" if len(types) > 1 or "mixed dtype" in text else ""


@contextmanager
def _compiled_parts_run_eagerly(model: nn.Module, recording: Recording) -> Iterator[None]:
    """Run compiled parts eagerly, since a compiled graph hides its operations from the trace, and note it."""
    compiled = [
        path for path, m in model.named_modules() if type(m).__name__ == "OptimizedModule" or m._compiled_call_impl
    ]
    if not compiled:
        yield
        return
    recording.notes.append(f"compiled parts ran eagerly for this check: {', '.join(compiled)}")
    with torch.compiler.set_stance("force_eager"):
        yield

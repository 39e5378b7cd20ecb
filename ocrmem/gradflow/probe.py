"""Run one instrumented forward and backward pass and record what happened.

The passes run on the model itself; its gradients, buffers, random state and hooks are restored afterwards.
Nothing that this module returns holds a tensor, so nothing of the passes stays in memory.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ocrmem.gradflow.batch_facts import BatchFacts, page_dependence
from ocrmem.gradflow.catalogue import Place
from ocrmem.gradflow.model_state import preserved
from ocrmem.gradflow.trace import NOT_THE_CALLERS, Lineage, Observed, Trace, tensors_in


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
    trained: bool
    requires_grad: bool
    is_inference: bool
    dtype: str
    used: bool = False
    requires_grad_after: bool = False
    gradient_norm: float | None = None
    finite: bool = True


@dataclass
class Recording:
    """Everything that `Diagnosis` needs, without a tensor in it."""

    parameters: list[Parameter]
    observed: Observed
    calls: list[ModuleCall] = field(default_factory=list)
    loss: float | None = None
    loss_requires_grad: bool = False
    loss_grad_fn: str = ""
    loss_lineage: Lineage = field(default_factory=Lineage)
    forward_error: str = ""
    forward_error_kind: str = ""
    failing_place: Place = field(default_factory=lambda: Place(""))
    failing_dtypes: tuple[str, ...] = ()
    backward_error: str = ""
    page_dependence: float | None = None
    feature_module: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def trained(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.trained]


class Probe:
    """Hooks on every module of ``model`` and a `Trace` of the parameters that are to be trained.

    Args:
        model: any module whose forward returns an object or dict with ``loss``.
        trained: paths of the modules that are to be trained.
        facts: what the batch holds, such as which rows of flat features belong together.
        sharded: an engine owns the parameters' gradients (DeepSpeed), so none may be accumulated behind its back.
    """

    def __init__(self, model: nn.Module, trained: Sequence[str], facts: BatchFacts, *, sharded: bool) -> None:
        self._model = model
        self._facts = facts
        self._sharded = sharded
        self._parameters = dict(model.named_parameters())
        entries = [
            Parameter(name, is_under(name, trained), p.requires_grad, p.is_inference(), str(p.dtype))
            for name, p in self._parameters.items()
        ]
        names = [entry.name for entry in entries if entry.trained]
        self._trained_paths = {name.rpartition(".")[0] for name in names}
        self._open: list[ModuleCall] = []
        parameters = (self._parameters[name] for name in names)
        self._trace = Trace(parameters, lambda: self._open[-1].path if self._open else "")
        self._recording = Recording(entries, self._trace.observed)

    def run(self, batch: Mapping[str, Any]) -> Recording:
        """Run forward and backward once. Errors that the doctor can diagnose are recorded, others are raised."""
        with preserved(self._model):
            loss = self._forward(batch)
            gradients = {} if loss is None else self._backward(loss)
            del loss
            for entry, parameter in zip(self._recording.parameters, self._parameters.values(), strict=True):
                entry.requires_grad_after = parameter.requires_grad
                gradient = gradients.get(entry.name, parameter.grad)
                if gradient is not None:
                    norm = gradient.detach().float().norm()
                    entry.finite = bool(torch.isfinite(norm))
                    entry.gradient_norm = float(norm)
        for index, entry in enumerate(self._recording.trained):
            entry.used = bool(self._trace.observed.used >> index & 1)
        return self._recording

    def _forward(self, batch: Mapping[str, Any]) -> torch.Tensor | None:
        handles = []
        for path, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(self._enter, path), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with _compiled_parts_run_eagerly(self._model, self._recording), self._trace:
                output = self._model(**batch)
        except (RuntimeError, ValueError) as error:
            if not (_kind(error) or self._facts.supervised_labels == 0):
                raise
            self._note_failure(error)
            return None
        finally:
            for handle in handles:
                handle.remove()
        return loss_of(output)

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
            if path and any(is_under(trained, [path]) for trained in self._trained_paths):
                self._measure_dependence(path, floating)
        self._recording.calls.append(call)
        self._open.append(call)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = self._open.pop()
        with self._trace.paused():
            outputs = [t for t in tensors_in(output) if t.is_floating_point()]
            call.output_finite = all_finite(outputs)
            lineage = self._trace.lineage_of(outputs)
            if not lineage.all and any(t.requires_grad for t in outputs):
                # A custom autograd function is not a torch call: what went in is what comes out.
                lineage = self._trace.lineage_of((args, kwargs))
                for tensor in outputs:
                    self._trace.adopt(tensor, lineage)
            call.output_depends, call.output_alive = lineage.all, lineage.alive
            if not lineage.all and call.depth == 1 and outputs and outputs[0].dim() >= 3:
                # The frozen encoder, page by page: further on, blank tokens are left out and places are lost.
                self._measure_dependence(call.path, outputs)
            for tensor in outputs:
                if tensor.requires_grad and not tensor.is_leaf:
                    tensor.register_hook(partial(_record_norm, call))

    def _measure_dependence(self, path: str, floating: list[torch.Tensor]) -> None:
        if not floating or self._recording.feature_module in self._trained_paths:
            return
        with torch.no_grad():
            found = page_dependence(floating[0], self._facts)
        if found is not None and (self._recording.page_dependence is None or floating[0].dim() >= 3):
            self._recording.page_dependence, self._recording.feature_module = found, path

    def _note_failure(self, error: Exception) -> None:
        record = self._recording
        record.forward_error, record.forward_error_kind = _first_line(error), _kind(error)
        frames = traceback.extract_tb(error.__traceback__)
        sources = [f"{f.filename}:{f.lineno}" for f in frames if not f.filename.startswith(NOT_THE_CALLERS)]
        record.failing_place = Place(self._open[-1].path if self._open else "", sources[-1] if sources else "")
        record.failing_dtypes = self._open[-1].input_dtypes if self._open else ()

    def _backward(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Read the loss and run backward; return the gradients that it does not leave on the parameters."""
        record = self._recording
        record.loss = float(loss.detach())
        record.loss_requires_grad = loss.requires_grad
        record.loss_lineage = self._trace.lineage_of(loss)
        if not loss.requires_grad:
            record.backward_error = "element 0 of tensors does not require grad and does not have a grad_fn"
            return {}
        record.loss_grad_fn = type(loss.grad_fn).__name__ if loss.grad_fn is not None else ""
        try:
            if self._sharded:
                wanted = {name: p for name, p in self._parameters.items() if p.requires_grad}
                found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
                return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}
            loss.backward()
        except RuntimeError as error:
            record.backward_error = _first_line(error)
        return {}


def loss_of(output: Any) -> torch.Tensor:
    """Return the ``loss`` of a forward's output: an object, a dict, or the scalar tensor itself.

    Raises:
        ValueError: there is none.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None and isinstance(output, torch.Tensor) and output.numel() == 1:
        loss = output
    if not isinstance(loss, torch.Tensor):
        raise ValueError("forward returned no loss: give the batch labels, and return an object or dict with `loss`")
    return loss


def place_of(model: nn.Module, path: str) -> Place:
    """Return a module's path with ``file:line`` of its forward, or of the nearest module's around it.

    Torch's own classes are passed over, whose source helps nobody.
    """
    around = path
    while True:
        forward: Any = getattr(type(model.get_submodule(around)), "forward", None)
        code = getattr(inspect.unwrap(forward), "__code__", None)
        if code is not None and not code.co_filename.startswith(NOT_THE_CALLERS[0]):
            return Place(path, f"{code.co_filename}:{code.co_firstlineno}")
        if not around:
            return Place(path)
        around = around.rpartition(".")[0]


def _record_norm(call: ModuleCall, gradient: torch.Tensor) -> None:
    call.gradient_norm = float(gradient.detach().float().norm())


def all_finite(tensors: list[torch.Tensor]) -> bool:
    """Return whether no tensor holds NaN or plus infinity; minus infinity is what attention masks are made of."""
    return not any(bool((torch.isnan(t) | torch.isposinf(t)).any()) for t in tensors)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def is_under(name: str, paths: Sequence[str]) -> bool:
    """Return whether a module or parameter is one of ``paths`` or lies inside one."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _kind(error: Exception) -> str:
    text = str(error)
    if "inference tensor" in text.lower() or "inference_mode" in text:
        return "inference"
    return "dtype" if "dtype" in text or "scalar type" in text else ""


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

"""Run one instrumented forward and backward pass and record what happened.

The passes run on the model itself; its gradients, buffers, random state and hooks are restored afterwards.
Nothing that this module returns holds a tensor, so nothing of the passes stays in memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ocrmem.gradflow.batch_facts import BatchFacts, page_dependence
from ocrmem.gradflow.model_state import preserved
from ocrmem.gradflow.trace import OWN_FOLDER, TORCH_FOLDER, Lineage, Observed, Place, Trace, tensors_in


@dataclass
class ModuleCall:
    """One call of one module in the forward pass.

    Attributes:
        path, kind: dotted path and class.
        depth: nesting, from 0.
        source: ``file:line`` of its forward, or of the nearest module around it that has one.
        grad_enabled: autograd's mode when it was called.
        input_dtypes: of its floating inputs.
        input_finite, output_finite: no NaN and no plus infinity.
        output_depends: bit set of the trained parameters that the output's value depends on.
        output_alive: those of them that autograd still knows.
        gradient_norm: of its last output, if backward came by.
    """

    path: str
    kind: str
    depth: int
    source: str
    grad_enabled: bool
    input_dtypes: tuple[str, ...]
    input_finite: bool
    output_finite: bool = True
    output_depends: int = 0
    output_alive: int = 0
    gradient_norm: float | None = None


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

    calls: list[ModuleCall] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    observed: Observed = field(default_factory=Observed)
    loss: float | None = None
    loss_requires_grad: bool = False
    loss_grad_fn: str = ""
    loss_lineage: Lineage = field(default_factory=Lineage)
    forward_error: str = ""
    forward_error_kind: str = ""
    failing_module: str = ""
    failing_place: Place | None = None
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

    def __init__(self, model: nn.Module, trained: Sequence[str], facts: BatchFacts, *, sharded: bool = False) -> None:
        self._model = model
        self._facts = facts
        self._sharded = sharded
        self._gradients: dict[int, torch.Tensor] = {}
        named = list(model.named_parameters())
        self._trained = [(name, parameter) for name, parameter in named if is_under(name, trained)]
        self._recording = Recording(
            parameters=[
                Parameter(name, is_under(name, trained), p.requires_grad, p.is_inference(), str(p.dtype))
                for name, p in named
            ]
        )
        self._open: list[ModuleCall] = []
        self._handles: list[Any] = []
        self._trained_paths = {name.rpartition(".")[0] for name, _ in self._trained}
        self._trace = Trace([p for _, p in self._trained], lambda: self._open[-1].path if self._open else "")

    def run(self, batch: Mapping[str, Any]) -> Recording:
        """Run forward and backward once. Errors that the doctor can diagnose are recorded, others are raised."""
        with preserved(self._model):
            try:
                loss = self._forward(batch)
            finally:
                self._remove_hooks()
            if loss is not None:
                self._read_loss(loss)
                self._backward(loss)
                del loss
            self._read_gradients()
        self._recording.observed = self._trace.observed
        used = self._trace.observed.used
        for index, parameter in enumerate(self._recording.trained):
            parameter.used = bool(used >> index & 1)
        return self._recording

    def _forward(self, batch: Mapping[str, Any]) -> torch.Tensor | None:
        for path, module in self._model.named_modules():
            self._handles.append(module.register_forward_pre_hook(partial(self._enter, path), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with _compiled_parts_run_eagerly(self._model, self._recording), self._trace:
                output = self._model(**batch)
        except (RuntimeError, ValueError) as error:
            if not (_kind(error) or self._facts.supervised_labels == 0):
                raise
            self._note_failure(error)
            return None
        return loss_of(output)

    def _enter(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        floating = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
        with self._trace.paused():
            call = ModuleCall(
                path=path,
                kind=type(module).__name__,
                depth=len(self._open),
                source=source_around(self._model, path),
                grad_enabled=torch.is_grad_enabled(),
                input_dtypes=tuple(sorted({str(t.dtype) for t in floating})),
                input_finite=all_finite(floating),
            )
            trained = self._trained_paths
            if path in trained or (path and any(is_under(other, [path]) for other in trained)):
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
                # A custom autograd function is no torch call: what went in is what comes out.
                lineage = self._trace.lineage_of((args, kwargs))
                for tensor in outputs:
                    self._trace.adopt(tensor, lineage)
            call.output_depends, call.output_alive = lineage.all, lineage.alive
            if not lineage.all and call.depth == 1 and outputs and outputs[0].dim() >= 3:
                # The frozen encoder, page by page: further on, blank tokens are left out and places are lost.
                self._measure_dependence(call.path, outputs)
            for tensor in outputs:
                if tensor.requires_grad and not tensor.is_leaf:
                    tensor.register_hook(_norm_recorder(call))

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
        if self._open:
            record.failing_module, record.failing_dtypes = self._open[-1].path, self._open[-1].input_dtypes
        frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
        own = [f for f in frames if not f.filename.startswith((TORCH_FOLDER, OWN_FOLDER))]
        if own:
            record.failing_place = Place(record.failing_module, own[-1].filename, own[-1].lineno)

    def _read_loss(self, loss: torch.Tensor) -> None:
        record = self._recording
        record.loss = float(loss.detach())
        record.loss_requires_grad = loss.requires_grad
        record.loss_grad_fn = type(loss.grad_fn).__name__ if loss.grad_fn is not None else ""
        record.loss_lineage = self._trace.lineage_of(loss)

    def _backward(self, loss: torch.Tensor) -> None:
        if not loss.requires_grad:
            self._recording.backward_error = "element 0 of tensors does not require grad and does not have a grad_fn"
            return
        try:
            if self._sharded:
                wanted = [p for p in self._model.parameters() if p.requires_grad]
                found = torch.autograd.grad(loss, wanted, allow_unused=True)
                self._gradients = {id(p): g for p, g in zip(wanted, found, strict=True) if g is not None}
            else:
                loss.backward()
        except RuntimeError as error:
            self._recording.backward_error = _first_line(error)

    def _read_gradients(self) -> None:
        for entry, (_, parameter) in zip(self._recording.parameters, self._model.named_parameters(), strict=True):
            entry.requires_grad_after = parameter.requires_grad
            gradient = self._gradients.get(id(parameter), parameter.grad)
            if gradient is not None:
                norm = gradient.detach().float().norm()
                entry.finite = bool(torch.isfinite(norm))
                entry.gradient_norm = float(norm)
        self._gradients.clear()

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


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


def source_of(module: nn.Module) -> str:
    """Return ``file:line`` of the class's forward; empty for torch's own classes, whose source helps nobody."""
    try:
        code = inspect.unwrap(type(module).forward).__code__
    except AttributeError:
        return ""
    return "" if code.co_filename.startswith(TORCH_FOLDER) else f"{code.co_filename}:{code.co_firstlineno}"


def source_around(model: nn.Module, path: str) -> str:
    """Return `source_of` the module at ``path``, or of the nearest module around it that has one."""
    while True:
        source = source_of(model.get_submodule(path))
        if source or not path:
            return source
        path = path.rpartition(".")[0]


def _norm_recorder(call: ModuleCall) -> Callable[[torch.Tensor], None]:
    def record(gradient: torch.Tensor) -> None:
        call.gradient_norm = float(gradient.detach().float().norm())

    return record


def all_finite(tensors: list[torch.Tensor]) -> bool:
    """Whether no tensor holds NaN or plus infinity; minus infinity is what attention masks are made of."""
    return not any(bool((torch.isnan(t) | torch.isposinf(t)).any()) for t in tensors)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def is_under(name: str, paths: Sequence[str]) -> bool:
    """Whether a module or parameter is one of ``paths`` or lies inside one."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _kind(error: Exception) -> str:
    text = str(error)
    if "inference tensor" in text.lower() or "inference_mode" in text:
        return "inference"
    if "dtype" in text or "scalar type" in text:
        return "dtype"
    return ""


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

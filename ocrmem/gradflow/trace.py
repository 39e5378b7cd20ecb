"""Follow the trained parameters' values through one forward pass, operation by operation.

autograd forgets where it was cut: after ``detach`` nothing points back. So a `TorchFunctionMode` watches every
torch call of the forward pass and keeps, beside each tensor, which trained parameters its *value* depends on
and, for each of them, whether autograd still knows it (``alive``) or where it was lost (``cuts``). A set of
parameters is an int used as a bit set.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

TORCH_FOLDER = str(Path(torch.__file__).parent)
OWN_FOLDER = str(Path(__file__).parent)
_CHECKPOINT_FILE = str(Path(torch.utils.checkpoint.__file__))
# These run their part without autograd and give their outputs a grad_fn afterwards.
_REVIVING = ("reentrant", "custom function")

# The result of these has the shape or type of the argument but not its value.
_VALUE_FREE = (
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A line of source, and the module whose forward was running there."""

    module: str
    file: str
    line: int

    @property
    def source(self) -> str:
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.module or 'the model'} ({self.source})"


@dataclass(frozen=True)
class Cut:
    """The operation at which a value that needed gradients continued without them.

    Attributes:
        operation: the torch function, such as ``Tensor.detach``.
        place: where it was called.
        grad_enabled, inference: autograd's modes at that moment.
        checkpoint: "reentrant", "non-reentrant", "custom function" or "", for what runs it.
        hidden: the value came from outside that checkpoint, past its arguments.
    """

    operation: str
    place: Place
    grad_enabled: bool
    inference: bool
    checkpoint: str
    hidden: bool = False


@dataclass(frozen=True)
class Lineage:
    """What a tensor's value depends on: parameters that autograd still knows, and lost ones with their cut."""

    alive: int = 0
    cuts: tuple[tuple[int, Cut], ...] = ()

    @property
    def all(self) -> int:
        mask = self.alive
        for lost, _ in self.cuts:
            mask |= lost
        return mask


@dataclass
class Observed:
    """What the trace saw besides the lineage of single tensors."""

    used: int = 0
    cuts: list[tuple[int, Cut]] = field(default_factory=list)
    repairs: list[tuple[int, Place]] = field(default_factory=list)
    inference_tensors: list[tuple[str, Place]] = field(default_factory=list)


class Trace(TorchFunctionMode):
    """Watch torch calls. Enter it around a forward pass; ``lineage_of`` answers afterwards.

    Args:
        parameters: the trained parameters; bit i of a mask is the i-th of them.
        module_path: gives the dotted path of the module whose forward is running.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], module_path: Callable[[], str]) -> None:
        super().__init__()
        self._bits = WeakIdKeyDictionary()
        for index, parameter in enumerate(parameters):
            self._bits[parameter] = 1 << index
        self._lineage = WeakIdKeyDictionary()
        self._module_path = module_path
        self._paused = False
        self.observed = Observed()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ignore the calls of the block: a hook's own are not part of the forward pass."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._paused and (result is None or isinstance(result, torch.Tensor | tuple | list)):
            self._record(func, args, kwargs or {}, result)
        return result

    def lineage_of(self, value: Any) -> Lineage:
        """Join the lineage of every tensor in ``value``."""
        return self._join(tensors_in(value))

    def adopt(self, tensor: torch.Tensor, lineage: Lineage) -> None:
        """Set the lineage of a tensor that no watched call made (a custom autograd function's output)."""
        if lineage.all:
            self._lineage[tensor] = lineage

    def _record(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        sources = list(tensors_in((args, kwargs)))
        if not sources:
            return
        outputs = list(tensors_in(result))
        name = getattr(func, "__name__", "")
        if result is None and name == "__setitem__":
            outputs = [args[0]]
        fresh_inference = [o for o in outputs if o.is_inference() and not any(s.is_inference() for s in sources)]
        if fresh_inference and torch.is_inference_mode_enabled():
            self.observed.inference_tensors.append((name, self._place()))
        lineage = self._join(sources)
        if not lineage.all or name in _VALUE_FREE:
            return
        for output in outputs:
            if output.is_floating_point() or output.is_complex():
                self._lineage[output] = self._after(func, name, lineage, output, sources)

    def _after(
        self,
        func: Callable[..., Any],
        name: str,
        lineage: Lineage,
        output: torch.Tensor,
        sources: list[torch.Tensor],
    ) -> Lineage:
        if name == "requires_grad_" and lineage.cuts and not lineage.alive and output.requires_grad:
            self.observed.repairs.append((lineage.all, self._place()))
            return lineage
        if not lineage.alive or output.requires_grad:
            return lineage
        checkpoint, frame = checkpoint_around()
        cut = Cut(
            operation=operation_name(func, name),
            place=self._place(),
            grad_enabled=torch.is_grad_enabled(),
            inference=torch.is_inference_mode_enabled(),
            checkpoint=checkpoint,
            hidden=checkpoint == "reentrant" and any(_hidden_from(frame, s, self._bits) for s in sources),
        )
        self.observed.cuts.append((lineage.alive, cut))
        return Lineage(0, (*lineage.cuts, (lineage.alive, cut)))

    def _join(self, tensors: Any) -> Lineage:
        alive, cuts = 0, {}
        for tensor in tensors:
            bit = self._bits.get(tensor, 0)
            self.observed.used |= bit
            alive |= bit
            known = self._lineage.get(tensor)
            if known is None:
                continue
            if tensor.requires_grad and all(cut.checkpoint in _REVIVING for _, cut in known.cuts):
                alive |= known.all
            else:
                alive |= known.alive
                cuts.update(dict.fromkeys(known.cuts))
        return Lineage(alive, tuple(cuts))

    def _place(self) -> Place:
        file, line = caller()
        return Place(self._module_path(), file, line)


def tensors_in(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Find every tensor in nested tuples, lists and mappings, to a few levels."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, tuple | list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item, depth - 1)


def operation_name(func: Callable[..., Any], name: str) -> str:
    """Return a readable name: ``Tensor.detach``, ``Tensor.data``, ``torch.nn.functional.linear``."""
    if name == "__get__":
        return f"Tensor.{getattr(getattr(func, '__self__', None), '__name__', 'attribute')}"
    full = resolve_name(func) or name
    return full.removeprefix("torch.") if full.startswith("torch.Tensor") else full


def caller() -> tuple[str, int]:
    """Return file and line of the innermost frame that is neither torch's nor this package's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((TORCH_FOLDER, OWN_FOLDER, "<")):
            return file, frame.f_lineno
        frame = frame.f_back
    return "<unknown>", 0


def checkpoint_around() -> tuple[str, FrameType | None]:
    """Return the kind of activation checkpoint or custom autograd function that runs the calling code, and the frame
    of a re-entrant checkpoint."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _CHECKPOINT_FILE:
            if frame.f_code.co_name == "forward":
                return "reentrant", frame
            if frame.f_code.co_name == "checkpoint":
                return "non-reentrant", frame
        if (
            frame.f_code.co_name == "forward"
            and frame.f_code.co_varnames[:1] != ("self",)
            and _is_function(frame.f_code)
        ):
            return "custom function", None
        frame = frame.f_back
    return "", None


def _is_function(code: CodeType) -> bool:
    """Whether this is the forward of some `torch.autograd.Function`; its class is not on the stack."""
    waiting = [torch.autograd.Function]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        forward = inspect.unwrap(kind.forward)
        if getattr(forward, "__code__", None) is code:
            return True
    return False


def _hidden_from(frame: FrameType | None, tensor: torch.Tensor, parameters: WeakIdKeyDictionary) -> bool:
    """Whether a gradient-carrying tensor reached a re-entrant checkpoint past its arguments."""
    if frame is None or not tensor.requires_grad or tensor in parameters or tensor.grad_fn is None:
        return False
    return all(tensor is not given for given in frame.f_locals.get("args", ()))

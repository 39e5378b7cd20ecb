"""Follow the trained parameters' values through one forward pass, operation by operation.

autograd forgets where it was cut: after ``detach`` nothing points back. So a `TorchFunctionMode` watches every
torch call of the forward pass and keeps, beside each tensor, which trained parameters its *value* depends on
and, for each of them, whether autograd still knows it (``alive``) or where it was lost (``cuts``). A set of
parameters is an int used as a bit set.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import walk_stack
from types import CodeType, FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

from ocrmem.gradflow.catalogue import Place

# Frames of torch and of this package are never the place of a fault.
NOT_THE_CALLERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_CHECKPOINT_FILE = str(Path(torch.utils.checkpoint.__file__))
# These run their part without autograd and give their outputs a grad_fn afterwards.
_REVIVING = ("reentrant", "custom function")

# The result of these has the shape or type of the argument but not its value.
_VALUE_FREE = (
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor",
)  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """The operation at which a value that needed gradients continued without them."""

    operation: str  # the torch function, such as Tensor.detach
    place: Place
    grad_enabled: bool
    inference: bool
    checkpoint: str  # what runs it: "reentrant", "non-reentrant", "custom function" or ""
    hidden: bool  # the value came from outside that checkpoint, past its arguments


@dataclass(frozen=True)
class Lineage:
    """The parameters that a tensor's value depends on: known to autograd still, or lost and at which cut."""

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
    """Observations of a trace besides the lineage of single tensors."""

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

    def __init__(self, parameters: Iterable[torch.nn.Parameter], module_path: Callable[[], str]) -> None:
        super().__init__()
        self._bits = WeakIdKeyDictionary({parameter: 1 << index for index, parameter in enumerate(parameters)})
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

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._paused and (result is None or isinstance(result, torch.Tensor | tuple | list)):
            self._record(func, args, kwargs, result)
        return result

    def lineage_of(self, value: Any) -> Lineage:
        """Join the lineage of every tensor in ``value``."""
        alive, cuts = 0, {}
        for tensor in tensors_in(value):
            bit = self._bits.get(tensor, 0)
            self.observed.used |= bit
            known = self._lineage.get(tensor, Lineage())
            if tensor.requires_grad and all(cut.checkpoint in _REVIVING for _, cut in known.cuts):
                alive |= bit | known.all
            else:
                alive |= bit | known.alive
                cuts.update(dict.fromkeys(known.cuts))
        return Lineage(alive, tuple(cuts))

    def adopt(self, tensor: torch.Tensor, lineage: Lineage) -> None:
        """Set the lineage of a tensor that no watched call made (a custom autograd function's output)."""
        if lineage.all:
            self._lineage[tensor] = lineage

    def _record(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        sources = list(tensors_in((args, kwargs)))
        if not sources:
            return
        name = getattr(func, "__name__", "")
        outputs = [args[0]] if result is None and name == "__setitem__" else list(tensors_in(result))
        fresh_inference = any(o.is_inference() for o in outputs) and not any(s.is_inference() for s in sources)
        if fresh_inference and torch.is_inference_mode_enabled():
            self.observed.inference_tensors.append((name, self._place()))
        lineage = self.lineage_of(sources)
        if not lineage.all or name in _VALUE_FREE:
            return
        for output in outputs:
            if output.is_floating_point() or output.is_complex():
                self._lineage[output] = self._after(func, lineage, output, sources)

    def _after(self, func: Any, lineage: Lineage, output: torch.Tensor, sources: list[torch.Tensor]) -> Lineage:
        """Return the lineage of an operation's output, and observe it if the operation cuts or hides a cut."""
        if not lineage.alive and output.requires_grad and getattr(func, "__name__", "") == "requires_grad_":
            self.observed.repairs.append((lineage.all, self._place()))
        if not lineage.alive or output.requires_grad:
            return lineage
        checkpoint, frame = checkpoint_around()
        cut = Cut(
            operation=operation_name(func),
            place=self._place(),
            grad_enabled=torch.is_grad_enabled(),
            inference=torch.is_inference_mode_enabled(),
            checkpoint=checkpoint,
            hidden=frame is not None and any(self._hidden_from(frame, source) for source in sources),
        )
        self.observed.cuts.append((lineage.alive, cut))
        return Lineage(0, (*lineage.cuts, (lineage.alive, cut)))

    def _hidden_from(self, frame: FrameType, tensor: torch.Tensor) -> bool:
        """Return whether a gradient-carrying tensor reached a re-entrant checkpoint past its arguments."""
        if not tensor.requires_grad or tensor in self._bits or tensor.grad_fn is None:
            return False
        return all(tensor is not given for given in frame.f_locals.get("args", ()))

    def _place(self) -> Place:
        """Return where the running operation was called from, past torch's and this package's frames."""
        for frame, line in walk_stack(sys._getframe(1)):
            if not (file := frame.f_code.co_filename).startswith((*NOT_THE_CALLERS, "<")):
                return Place(self._module_path(), f"{file}:{line}")
        return Place(self._module_path(), "<unknown>:0")


def tensors_in(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Find every tensor in nested tuples, lists and mappings, to a few levels."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, tuple | list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item, depth - 1)


def operation_name(func: Any) -> str:
    """Return a readable name: ``Tensor.detach``, ``Tensor.data``, ``torch.nn.functional.linear``."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return f"Tensor.{getattr(getattr(func, '__self__', None), '__name__', 'attribute')}"
    full = resolve_name(func) or name
    return full.removeprefix("torch.") if full.startswith("torch.Tensor") else full


def checkpoint_around() -> tuple[str, FrameType | None]:
    """Return the kind of activation checkpoint or custom autograd function that runs the calling code, and the frame
    of a re-entrant checkpoint."""
    for frame, _ in walk_stack(sys._getframe(1)):
        code = frame.f_code
        if code.co_filename == _CHECKPOINT_FILE and code.co_name == "forward":
            return "reentrant", frame
        if code.co_filename == _CHECKPOINT_FILE and code.co_name == "checkpoint":
            return "non-reentrant", None
        if code.co_name == "forward" and code.co_varnames[:1] != ("self",) and _is_function(code):
            return "custom function", None
    return "", None


def _is_function(code: CodeType) -> bool:
    """Return whether this is the forward of some `torch.autograd.Function`; its class is not on the stack."""
    waiting = [torch.autograd.Function]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if getattr(inspect.unwrap(kind.forward), "__code__", None) is code:
            return True
    return False

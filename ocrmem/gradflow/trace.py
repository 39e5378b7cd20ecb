"""Follow the trained parameters' values through one forward pass, operation by operation.

autograd forgets where it was cut: after ``detach`` nothing points back. So a `TorchFunctionMode` watches every
torch call of the forward pass and keeps, beside each tensor, which trained parameters its *value* depends on
and, for each of them, whether autograd still knows it (``alive``) or where it was lost (``cuts``). A set of
parameters is an int used as a bit set. Each such call is an `Operation`, which learns in the backward pass what
gradient reached it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Any

import torch
from torch.autograd import Function
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

from ocrmem.gradflow.catalogue import Place

# Frames of torch and of this package are never the place of a fault.
NOT_THE_CALLERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_CHECKPOINT_FILE = str(Path(torch.utils.checkpoint.__file__))

# The result of these has the shape or type of the argument but not its value.
_VALUE_FREE = (
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_zeros", "new_ones", "new_empty", "new_full",
)  # fmt: skip
_DETACHING = ("Tensor.detach", "Tensor.detach_", "Tensor.data", "torch.tensor", "Tensor.new_tensor")
# These hand a tensor's values to Python or to other libraries: whole, or a single number.
_WHOLE = ("numpy", "__array__", "tolist", "__dlpack__", "data_ptr")
_NUMBER = ("item", "__float__", "__int__", "__index__")


@dataclass(frozen=True)
class Cut:
    """The operation at which a value that needed gradients continued without them."""

    operation: str  # the torch function, such as Tensor.detach
    place: Place
    grad_enabled: bool
    inference: bool
    checkpoint: str  # the kind of activation checkpoint that runs it: "reentrant", "non-reentrant" or ""
    hidden: bool  # the value came from outside that checkpoint, past its arguments
    dtype: str  # of the result

    @property
    def detaches(self) -> bool:
        return self.operation in _DETACHING

    @property
    def autograd_off(self) -> bool:
        return self.inference or not self.grad_enabled


@dataclass(frozen=True)
class Lineage:
    """The parameters that a value depends on: known to autograd still, or lost and at which cut."""

    alive: int = 0
    cuts: tuple[tuple[int, Cut], ...] = ()
    made_by: tuple[int, ...] = ()  # indices of the operations whose results it is

    @property
    def all(self) -> int:
        mask = self.alive
        for lost, _ in self.cuts:
            mask |= lost
        return mask


@dataclass
class Operation:
    """A torch call, or a custom autograd function, that took a value which depends on trained parameters."""

    name: str
    place: Place
    depends: int  # bit set: its result's value depends on these
    alive: int  # those of them that autograd still knows
    inputs: tuple[int, ...]  # indices of the operations that made its inputs
    inputs_finite: bool  # so are they, whatever made them, weights aside
    finite: bool  # its result holds no NaN and no plus infinity
    gradient: float | None = None  # norm of its result's, once backward came by

    def note(self, gradient: torch.Tensor | None) -> None:
        """Take the gradient of one of its results."""
        if gradient is not None:
            self.gradient = max(self.gradient or 0.0, norm_of(gradient), key=_worst)


@dataclass(frozen=True)
class Departure:
    """A call that handed values out of torch's sight."""

    operation: str
    place: Place
    lineage: Lineage
    whole: bool  # a tensor's worth of values, not a single number


@dataclass
class Observed:
    """Observations of a trace besides the lineage of single tensors."""

    used: int = 0
    operations: list[Operation] = field(default_factory=list)
    departures: list[Departure] = field(default_factory=list)
    repairs: list[tuple[int, Place]] = field(default_factory=list)
    inference_tensors: list[tuple[str, Place]] = field(default_factory=list)

    def last_reached(self, parameters: int, arrives: Callable[[float], bool]) -> Operation | None:
        """Return the operation nearest the loss at which the gradient of some of ``parameters`` ends.

        Args:
            parameters: bit set.
            arrives: whether a gradient of this norm is one; backward brought such a one to the operation's result
                and to none of the operations that made its inputs.
        """

        def reached(operation: Operation) -> bool:
            return operation.gradient is not None and arrives(operation.gradient)

        for operation in reversed(self.operations):
            before = [self.operations[index] for index in operation.inputs]
            on_the_way = [made for made in before if made.alive & parameters]
            if operation.alive & parameters and reached(operation) and not any(map(reached, on_the_way)):
                return operation
        return None


class Trace(TorchFunctionMode):
    """Watch torch calls within ``watching()``; ``lineage_of`` answers afterwards.

    Args:
        bits: the trained parameters, each with the bit that is its own in every bit set.
        module_path: gives the dotted path of the module whose forward is running.
    """

    def __init__(self, bits: Mapping[torch.nn.Parameter, int], module_path: Callable[[], str]) -> None:
        super().__init__()
        self._bits = WeakIdKeyDictionary(dict(bits))
        self._lineage = WeakIdKeyDictionary()
        self._module_path = module_path
        self._paused = False
        self._mark = object()  # under which nodes of autograd's graph know their operation
        self.observed = Observed()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the torch calls of the block, and the custom autograd functions, which no mode sees."""
        original = vars(Function)["apply"]

        def apply(kind: type, *args: Any, **kwargs: Any) -> Any:
            return self._custom(kind, original.__get__(None, kind), args, kwargs)

        Function.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
        try:
            with self:
                yield
        finally:
            Function.apply = original  # type: ignore[method-assign]

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
        if not self._paused:
            self._record(func, args, kwargs, result)
        return result

    def _custom(self, kind: type, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._paused:
            return run(*args, **kwargs)
        if kind is not torch.utils.checkpoint.CheckpointFunction:
            with self.paused():
                result = run(*args, **kwargs)
                self._record(kind, args, kwargs, result)
            return result
        # What a re-entrant checkpoint runs is the model's own; it lacks autograd until backward runs it again.
        result = run(*args, **kwargs)
        with self.paused():
            given = self.lineage_of(args)
            for output in tensors_in(result):
                known = self.lineage_of(output)
                if output.requires_grad:
                    lost = tuple((mask, cut) for mask, cut in known.cuts if cut.hidden)
                    revived = given.alive | known.all
                    for mask, _ in lost:
                        revived &= ~mask
                    self._remember("checkpoint", Lineage(revived, lost, given.made_by), [output])
        return result

    def lineage_of(self, value: Any) -> Lineage:
        """Join the lineage of every tensor in ``value``."""
        alive, cuts, made_by = 0, {}, {}
        for tensor in tensors_in(value):
            bit = self._bits.get(tensor, 0)
            known = self._lineage.get(tensor)
            if known is None:
                known = self._from_graph(tensor)
            alive |= bit | known.alive
            cuts.update(dict.fromkeys(known.cuts))
            made_by.update(dict.fromkeys(known.made_by))
        return Lineage(alive, tuple(cuts), tuple(made_by))

    def _from_graph(self, tensor: torch.Tensor) -> Lineage:
        """Ask autograd where a tensor comes from that no watched call made, such as an extension's result."""
        if tensor.grad_fn is None:
            return Lineage()
        alive, makers, seen, waiting = 0, [], set(), [tensor.grad_fn]
        while waiting:
            node: Any = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if (maker := node.metadata.get(self._mark)) is not None:
                alive |= self.observed.operations[maker].alive
                makers.append(maker)
                continue
            if (leaf := getattr(node, "variable", None)) is not None:
                alive |= self._bits.get(leaf, 0)
            waiting += [before for before, _ in node.next_functions if before is not None]
        lineage = Lineage(alive, (), tuple(makers))
        if not alive:
            self._lineage[tensor] = lineage
            return lineage
        name = type(tensor.grad_fn).__name__.removesuffix("Backward")
        return self._remember(name, lineage, [tensor], place=Place(self._module_path()))

    def _record(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        sources = list(tensors_in((args, kwargs)))
        if not sources:
            return
        name = getattr(func, "__name__", "")
        outputs = [args[0]] if name in ("__setitem__", "__set__") else list(tensors_in(result))
        fresh_inference = any(o.is_inference() for o in outputs) and not any(s.is_inference() for s in sources)
        if fresh_inference and torch.is_inference_mode_enabled():
            self.observed.inference_tensors.append((name, self._place()))
        lineage = self.lineage_of(sources)
        if not lineage.all or name in _VALUE_FREE:
            for output in outputs:
                if output.requires_grad and output not in self._bits:
                    self._lineage[output] = Lineage()
        elif name in _WHOLE + _NUMBER:
            left = Departure(operation_name(func), self._place(), lineage, name in _WHOLE)
            self.observed.departures.append(left)
        elif operation_name(func) in ("Tensor.requires_grad_", "Tensor.requires_grad"):
            if outputs and not lineage.alive and outputs[0].requires_grad:
                self.observed.repairs.append((lineage.all, self._place()))
        elif outputs:
            for source in sources:
                self.observed.used |= self._bits.get(source, 0)
            self._remember(operation_name(func), lineage, outputs, sources)

    def _remember(
        self,
        name: str,
        lineage: Lineage,
        outputs: list[torch.Tensor],
        sources: list[torch.Tensor] | None = None,
        place: Place | None = None,
    ) -> Lineage:
        """Make an operation of a call; give each of its results its lineage, and return the last one's."""
        index = len(self.observed.operations)
        place = place or self._place()
        sound = all_finite(t for t in sources or () if not isinstance(t, torch.nn.Parameter))
        operation = Operation(name, place, lineage.all, 0, lineage.made_by, sound, all_finite(outputs))
        self.observed.operations.append(operation)
        made = Lineage()
        for output in outputs:
            made = Lineage(lineage.alive, lineage.cuts, (index,))
            if output.requires_grad and output.grad_fn is not None and not _transforming():
                operation.alive |= lineage.alive
                node: Any = output.grad_fn
                node.metadata[self._mark] = index
                output.register_hook(partial(_note, operation))
            elif lineage.alive and not output.requires_grad:
                cut = self._cut(name, place, output, sources or [])
                made = Lineage(0, (*lineage.cuts, (lineage.alive, cut)), (index,))
            self._lineage[output] = made
        return made

    def _cut(self, name: str, place: Place, output: torch.Tensor, sources: list[torch.Tensor]) -> Cut:
        checkpoint, frame = checkpoint_around()
        return Cut(
            operation=name,
            place=place,
            grad_enabled=torch.is_grad_enabled(),
            inference=torch.is_inference_mode_enabled(),
            checkpoint=checkpoint,
            hidden=frame is not None and any(self._hidden_from(frame, source) for source in sources),
            dtype=str(output.dtype),
        )

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
    """Find every tensor in nested tuples, lists, mappings and dataclasses, to a few levels."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, tuple | list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item, depth - 1)
    elif depth and is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, f.name) for f in fields(value)], depth)


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether no tensor holds NaN or plus infinity; minus infinity is what attention masks are made of."""
    return all(
        float(t.detach().max()) < math.inf  # false for NaN, which max passes on
        for t in tensors
        if t.is_floating_point() and t.layout is torch.strided and t.numel() and t.element_size() > 1
        if not (t.is_meta or _transforming())
    )


def _transforming() -> bool:
    """Return whether vmap or grad of torch.func runs: its tensors stand for several values, and none can be read."""
    return torch._C._are_functorch_transforms_active()


def norm_of(gradient: torch.Tensor) -> float:
    """Return the Euclidean norm of a gradient: dense or sparse, of any precision, real or complex."""
    values = gradient.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return float(torch.linalg.vector_norm(values))


def operation_name(func: Any) -> str:
    """Return a readable name: ``Tensor.detach``, ``Tensor.data``, ``torch.nn.functional.linear``, ``MyFunction``."""
    name = getattr(func, "__name__", "")
    if isinstance(func, type):
        return name
    if name in ("__get__", "__set__"):
        return f"Tensor.{getattr(getattr(func, '__self__', None), '__name__', 'attribute')}"
    full = resolve_name(func) or name
    return full.removeprefix("torch.") if full.startswith("torch.Tensor") else full


def checkpoint_around() -> tuple[str, FrameType | None]:
    """Return the kind of activation checkpoint that runs the calling code, and a re-entrant one's frame."""
    for frame, _ in walk_stack(sys._getframe(1)):
        code = frame.f_code
        if code.co_filename == _CHECKPOINT_FILE and code.co_name == "forward":
            return "reentrant", frame
        if code.co_filename == _CHECKPOINT_FILE and code.co_name == "checkpoint":
            return "non-reentrant", None
    return "", None


def _note(operation: Operation, gradient: torch.Tensor | None) -> None:
    operation.note(gradient)  # and return nothing: what a hook returns takes the gradient's place


def _worst(norm: float) -> float:
    return float("inf") if norm != norm else norm

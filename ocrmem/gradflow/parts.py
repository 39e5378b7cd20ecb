"""Find the parameters that are to be trained by the names that people give: of modules, of parameters, or patterns."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

Trainable = str | Sequence[str]
_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine", "OptimizedModule")
# PEFT keeps the frozen original under these names inside the module that it adapts.
_ORIGINALS = ("base_layer", "original_module")


@dataclass(frozen=True)
class Part:
    """A part that is to be trained.

    Attributes:
        label: what people call it: its path, or the pattern as given.
        paths: of its modules or single parameters.
        parameters: full names, each the first of a tied parameter's.
        tied: lines that say which of them have another name outside the part.
        adapter: it holds adapters of PEFT, beside a base that stays frozen.
    """

    label: str
    paths: tuple[str, ...]
    parameters: tuple[str, ...]
    tied: tuple[str, ...]
    adapter: bool


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, a DeepSpeed engine or a compiled wrapper."""
    while type(model).__name__ in _WRAPPERS:
        model = model.get_submodule("_orig_mod" if hasattr(model, "_orig_mod") else "module")
    return model


def parts_of(model: nn.Module, trainable: Trainable) -> tuple[Part, ...]:
    """Find each part that ``trainable`` names.

    A name is the path of a module or parameter, the last components of exactly one, or a pattern with ``*``, ``?`` or
    ``[]`` for all that match.

    Raises:
        ValueError: a name has no match, or more than one.
    """
    wanted = [trainable] if isinstance(trainable, str) else trainable
    return tuple(_part(model, name) for name in wanted)


def uninitialised(model: nn.Module) -> bool:
    """Return whether a lazy module still waits for its first input."""
    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def is_under(name: str, paths: Sequence[str]) -> bool:
    """Return whether a module or parameter is one of ``paths`` or lies inside one."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _part(model: nn.Module, wanted: str) -> Part:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    holders = {name.rsplit(".", depth)[0] for name in parameters for depth in range(1, name.count(".") + 1)}
    paths = _matching(wanted, [name for name in (*modules, *parameters) if name in holders or name in parameters])
    if not paths:
        near = difflib.get_close_matches(wanted, [*modules, *parameters], n=1)
        hint = f"; did you mean {near[0]!r}?" if near and near[0] != wanted else ""
        raise ValueError(f"trainable={wanted!r}: no module or parameter of that name holds parameters{hint}")
    first_names = {parameter: name for name, parameter in model.named_parameters()}
    named = {name: first_names[parameters[name]] for name in parameters if is_under(name, paths)}
    if len(paths) > 1 and not _is_pattern(wanted):
        groups = {path: {first for name, first in named.items() if is_under(name, [path])} for path in paths}
        if any(group != groups[paths[0]] for group in groups.values()):
            shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
            raise ValueError(
                f"trainable={wanted!r}: {len(paths)} modules or parameters have that name ({shown}): give the full "
                f"path, or {f'*.{wanted}'!r} for all of them"
            )
        paths = paths[:1]
    adapted = {name: module for name, module in modules.items() if any(hasattr(module, o) for o in _ORIGINALS)}
    if adapter := any(is_under(name, [path]) for name in named for path in adapted):
        chosen = {n: first for n, first in named.items() if parameters[n].requires_grad or _adapts(n, adapted)}
        named = chosen or named
    label = wanted if len(paths) > 1 else paths[0]
    tied = (f"{name} is {first}: one parameter with two names" for name, first in named.items() if name != first)
    return Part(label, tuple(paths), tuple(dict.fromkeys(named.values())), tuple(tied), adapter)


def _is_pattern(wanted: str) -> bool:
    return any(character in wanted for character in "*?[")


def _matching(wanted: str, names: Sequence[str]) -> list[str]:
    """Return the outermost names that match."""
    if wanted in names:
        return [wanted]
    if _is_pattern(wanted):
        matching = {name for name in names if fnmatchcase(name, wanted)}
    else:
        matching = {name for name in names if name.endswith(f".{wanted}")}
    outermost = [name for name in names if name in matching]
    return [
        name
        for name in dict.fromkeys(outermost)
        if not any(name[:end] in matching for end, character in enumerate(name) if character == ".")
    ]


def _adapts(name: str, adapted: Mapping[str, nn.Module]) -> bool:
    """Return whether a parameter belongs to an active adapter inside a module that PEFT adapted."""
    path = max((path for path in adapted if is_under(name, [path])), key=len, default="")
    inside = name.removeprefix(f"{path}.").split(".")
    active: Any = getattr(adapted.get(path), "active_adapters", inside)
    return bool(path) and inside[0] not in _ORIGINALS and not set(inside).isdisjoint(active)

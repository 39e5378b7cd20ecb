"""Bytes of tensors that are alive, counted operation by operation; works on fake tensors too."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make, until they are freed.

    Attributes:
        live: bytes alive now, without those of ``known``.
        peak: the most there ever were.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self._seen:
                self._seen.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


class MostLogits(TorchDispatchMode):
    """Notes of how many positions an operation made the logits at once, at most.

    Args:
        vocabulary: logits of a position; no other tensor of two dimensions is as wide, but the weights.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.positions = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default) and result.shape[1] == self.vocabulary:
            self.positions = max(self.positions, len(result))
        return result


def saved_bytes(forward: Callable[[], Any], known: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages that autograd saves while ``forward`` runs, each once, without those of ``known``."""
    own = {tensor.untyped_storage().data_ptr() for tensor in known}
    saved: dict[int, torch.Tensor] = {}  # the tensors themselves, or an address could be given out again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            saved.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward()
    size = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    del kept
    return size

"""Samples laid one behind the other in a single row: nothing is padded, and attention needs no mask.

transformers notices positions that begin again and makes torch's attention a mask of the whole row. With a mask no
flash kernel runs, keys and values are repeated to all heads, and every pair of the row's positions is computed. Here a
GPU's kernel for sequences of different lengths gets the whole row and where its samples end. Where there is no such
kernel, a layer cuts the row into its samples, and each attends as a row of its own would.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask, sliding_window_causal_mask_function

from ocrmem.dataset.sequence import TokenSequence
from ocrmem.model.compatibility import BatchError

SAMPLE_LENGTHS = "sample_lengths"  # key of a batch
_NAME = "ocrmem_packed"  # among transformers' attention implementations
# torch 2.11's takes fewer heads of keys without being told.
_GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def pack(sequences: Sequence[TokenSequence]) -> dict[str, torch.Tensor]:
    """Lay sequences one behind the other: ``input_ids`` and ``labels`` long [1, T], ``sample_lengths`` long [S]."""
    return {
        "input_ids": torch.tensor([[*chain.from_iterable(sequence.input_ids for sequence in sequences)]]),
        "labels": torch.tensor([[*chain.from_iterable(sequence.labels for sequence in sequences)]]),
        SAMPLE_LENGTHS: torch.tensor([len(sequence.input_ids) for sequence in sequences]),
    }


def by_sample(values: torch.Tensor, lengths: torch.Tensor | None) -> Sequence[torch.Tensor]:
    """Return a batch's values [B, L] sample by sample, those of a row that ``lengths`` divides included."""
    return values.unbind() if lengths is None else values[0].split(lengths.tolist())


def attend_within_samples(base: PreTrainedModel) -> None:
    """Let a language model that attends by torch's ``scaled_dot_product_attention`` do so sample by sample.

    It changes nothing for batches of one sample a row. A model that attends otherwise is left alone: transformers'
    flash attention reads the samples' ends from the positions, and for all others it makes a mask of them.
    """
    if base.config._attn_implementation == "sdpa":
        base.set_attn_implementation(_NAME)


def mask_and_positions(
    base: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor | None, lengths: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return what a language model takes as attention_mask and position_ids.

    Positions begin at 0 with every sample, behind padding on the left too. What takes the place of a packed row's mask
    after `attend_within_samples` are its lengths, long [1, 1, 1, S]: transformers hands anything with four dimensions
    to every layer as it is.

    Args:
        ids: long [B, L].
        mask: 1 for tokens, 0 for padding [B, L]; None: no padding.
        lengths: of the samples in the only row, long [S]; None: every row is a sample.

    Raises:
        BatchError: ``lengths`` do not make up one row, or stand beside a mask.
    """
    if lengths is None:
        return mask, None if mask is None else (mask.long().cumsum(-1) - 1).clamp(min=0)
    found: list[int] = lengths.tolist()
    if mask is not None or len(ids) != 1 or sum(found) != ids.shape[1] or min(found) < 1:
        beside = "" if mask is None else ", beside an attention_mask"
        raise BatchError.of(
            SAMPLE_LENGTHS,
            f"are {found} for input_ids of shape {list(ids.shape)}{beside}",
            "Lay the samples one behind the other in one row, without padding and without a mask",
        )
    in_place = torch.tensor(found).view(1, 1, 1, -1) if base.config._attn_implementation == _NAME else None
    return in_place, torch.cat([torch.arange(length, device=ids.device) for length in found])[None]


def longest(batch: Mapping[str, Any]) -> int:
    """Return the tokens of a batch's longest sample, padding included; 0 without ``input_ids``."""
    if SAMPLE_LENGTHS in batch:
        return int(batch[SAMPLE_LENGTHS].max())
    return batch["input_ids"].shape[-1] if "input_ids" in batch else 0


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as ``sdpa_attention_forward`` does; where the mask is a row's lengths, within each sample.

    Args:
        query, key, value: [1, heads, T, c].
    """
    if attention_mask is None or attention_mask.dtype is not torch.int64:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return _attend_within(module, query, key, value, attention_mask, **kwargs), None


@torch.compiler.disable  # lengths are values: each new batch would be compiled anew
def _attend_within(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths_S: torch.Tensor,
    **kwargs: Any,
) -> torch.Tensor:
    """Return [1, T, heads, c] of queries [1, heads, T, c]."""
    lengths = lengths_S.flatten().tolist()
    window = kwargs.get("sliding_window")
    if has_varlen_kernel(query):
        return _attend_by_kernel(query, key, value, lengths, window, kwargs.get("scaling"))
    # Split, not sliced: its backward joins the gradients once instead of adding a row of zeros for each sample.
    samples = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    seen = [sdpa_attention_forward(module, q, k, v, _window_mask(q, window), **kwargs)[0] for q, k, v in samples]
    return torch.cat(seen, dim=1)


def has_varlen_kernel(query: torch.Tensor) -> bool:
    """Return whether torch's flash kernel takes samples of different lengths with queries [1, heads, T, c] as these."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    size = query.shape[-1]
    return size <= 256 and size % 8 == 0 and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _attend_by_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """Return [1, T, heads, c] of queries [1, heads, T, c]."""
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(query.device, non_blocking=True)
    kernel = cast(Callable[..., torch.Tensor], varlen_attn)
    seen = kernel(
        *(states[0].transpose(0, 1) for states in (query, key, value)),
        ends,
        ends,
        max(lengths),
        max(lengths),
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        **_GROUPED,
    )
    return seen.unsqueeze(0)


def _window_mask(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return the mask of a sample that is longer than a layer's attention reaches; None for others."""
    length = query.shape[2]
    if window is None or length <= window:
        return None
    within = sliding_window_causal_mask_function(window)
    return sdpa_mask(1, length, length, mask_function=within, allow_is_causal_skip=False, device=query.device)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)

"""Samples laid one behind the other in a single row: nothing is padded, and attention needs no mask.

transformers notices positions that begin again and makes torch's attention a mask of the whole row. With a mask no
flash kernel runs, keys and values are repeated to all heads, and every pair of the row's positions is computed. Here a
layer cuts the row into its samples instead, and each attends as a row of its own would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask, sliding_window_causal_mask_function

from ocrmem.dataset.sequence import TokenSequence
from ocrmem.model.compatibility import BatchError

SAMPLE_LENGTHS = "sample_lengths"  # key of a batch
_NAME = "ocrmem_packed"  # among transformers' attention implementations


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
    lengths = attention_mask.flatten().tolist()
    window = kwargs.get("sliding_window")
    # Split, not sliced: its backward joins the gradients once instead of adding a row of zeros for each sample.
    samples = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    seen = [sdpa_attention_forward(module, q, k, v, _window_mask(q, window), **kwargs)[0] for q, k, v in samples]
    return torch.cat(seen, dim=1), None


def _window_mask(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return the mask of a sample that is longer than a layer's attention reaches; None for others."""
    length = query.shape[2]
    if window is None or length <= window:
        return None
    within = sliding_window_causal_mask_function(window)
    return sdpa_mask(1, length, length, mask_function=within, allow_is_causal_skip=False, device=query.device)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)

"""Samples in one row: each is computed as if it had a row to itself, in every family of base models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.live_bytes import LiveBytes
from support.models import PLACEHOLDER, VISION, small_base, small_config, small_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ocrmem.model import packing
from ocrmem.model.compatibility import BatchError
from ocrmem.model.modeling import MEMModel

LENGTHS = [5, 17, 1, 11]
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}
# Layers of Mistral and Gemma 3 see four positions back: fewer than three of the samples have.
FAMILIES = [
    ("qwen3", {}),
    ("qwen2", {}),
    ("llama", {}),
    ("mistral", {"sliding_window": 4}),
    ("gemma", {}),
    ("gemma3_text", {"query_pre_attn_scalar": 16, "sliding_window": 4}),
    ("olmo2", {}),
]


def random_base(name: str, changes: dict[str, Any]) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SMALL, **changes))


def both_ways() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The same samples padded and packed; all but the shortest have three memory tokens and two labels."""
    source = torch.Generator().manual_seed(0)
    shape = (len(LENGTHS), max(LENGTHS))
    ids, labels = torch.randint(6, 60, shape, generator=source), torch.full(shape, -100)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    for row, length in enumerate(LENGTHS):
        if length > 3:
            ids[row, 1:4] = PLACEHOLDER
            labels[row, length - 2 : length] = ids[row, length - 2 : length]
    ids[~mask] = 0
    features = torch.randn(9, VISION, generator=source)
    padded = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels, "memory_features": features}
    packed = {"input_ids": ids[mask][None], "labels": labels[mask][None], "memory_features": features}
    return padded, packed | {packing.SAMPLE_LENGTHS: torch.tensor(LENGTHS)}


def loss_and_gradients(model: MEMModel, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss, torch.cat([parameter.grad.flatten() for parameter in model.proj.parameters()])


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize(("name", "changes"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_loss_and_gradients_are_those_of_padded_rows(name: str, changes: dict[str, Any], checkpointing: bool) -> None:
    model = MEMModel(small_config(), random_base(name, changes)).train()
    padded, packed = both_ways()
    wanted = loss_and_gradients(model, padded)
    if checkpointing:
        model.activation_checkpointing_enable()
    # By transformers' mask over the whole row first, then by our own attention, which has none.
    for cut in (lambda base: None, packing.attend_within_samples):
        cut(model.base_llm_model)
        for found, expected in zip(loss_and_gradients(model, packed), wanted, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    for found, expected in zip(loss_and_gradients(model, padded), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def attend_exactly(query, key, value, ends, ends_of_keys, longest, longest_of_keys, *, scale, window_size, enable_gqa):
    """What torch's kernel is documented to give, for [T, heads, c]: every sample by itself, pair by pair."""
    assert ends is ends_of_keys
    assert (ends.dtype, longest) == (torch.int32, longest_of_keys)
    assert enable_gqa
    assert longest == int(ends.diff().max())
    key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for states in (key, value))
    left, right = window_size
    seen = []
    for start, stop in zip(ends.tolist(), ends[1:].tolist(), strict=False):
        place = torch.arange(stop - start)
        behind = place[:, None] - place
        hidden = (behind < -right) | (behind > left if left >= 0 else False)
        scores = torch.einsum("qhc,khc->hqk", query[start:stop], key[start:stop]) * scale
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        seen.append(torch.einsum("hqk,khc->qhc", weights, value[start:stop]))
    return torch.cat(seen)


@pytest.mark.parametrize(("name", "changes"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_a_gpus_kernel_for_lengths_is_asked_for_what_padded_rows_give(
    name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MEMModel(small_config(), random_base(name, changes)).train()
    padded, packed = both_ways()
    wanted = loss_and_gradients(model, padded)
    packing.attend_within_samples(model.base_llm_model)
    monkeypatch.setattr(packing, "has_varlen_kernel", lambda query: True)
    monkeypatch.setattr(packing, "varlen_attn", attend_exactly)
    monkeypatch.setattr(packing, "sdpa_attention_forward", None)
    for found, expected in zip(loss_and_gradients(model, packed), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 4])
def test_torchs_own_function_takes_what_it_is_given(window: int | None) -> None:
    """On tensors without values, since its kernel is a GPU's: arguments, shapes, and backward."""
    with FakeTensorMode():
        query, key = (torch.empty(1, heads, 34, 16, dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2))
        seen = packing._attend_by_kernel(query, key, key, LENGTHS, window, 0.25)
        seen.sum().backward()
    assert seen.shape == (1, 34, 4, 16)
    assert (query.grad.shape, key.grad.shape) == (query.shape, key.shape)


def test_no_mask_of_a_packed_row_is_ever_in_memory() -> None:
    """Bytes counted: a mask has one for every pair of positions of the row, and torch makes it four."""
    lengths = [64] * 16
    ids = torch.randint(6, 60, (1, sum(lengths)), generator=torch.Generator().manual_seed(0))
    peaks = []
    for cut in (lambda base: None, packing.attend_within_samples):
        model = small_model(with_encoder=False)
        cut(model.base_llm_model)
        with torch.no_grad(), LiveBytes(model.parameters()) as bytes_:
            model(input_ids=ids, sample_lengths=torch.tensor(lengths), logits_to_keep=1)
        peaks.append(bytes_.peak)
    assert peaks[0] - peaks[1] > sum(lengths) ** 2


def test_a_model_that_does_not_attend_by_torchs_function_keeps_its_own() -> None:
    base = small_base(attn_implementation="eager")
    packing.attend_within_samples(base)
    assert base.config._attn_implementation == "eager"
    model, (padded, packed) = MEMModel(small_config(), base), both_ways()
    torch.testing.assert_close(model(**packed).loss, model(**padded).loss, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("lengths", "beside"),
    [([5, 17], {}), ([34, 0], {}), (LENGTHS, {"attention_mask": torch.ones(1, 34, dtype=torch.long)})],
    ids=["too few", "an empty one", "a mask"],
)
def test_lengths_that_do_not_make_up_the_row_are_refused(lengths: list[int], beside: dict[str, torch.Tensor]) -> None:
    _, packed = both_ways()
    with pytest.raises(BatchError, match=r"sample_lengths: are .* Lay the samples one behind the other"):
        small_model(with_encoder=False)(**packed | {packing.SAMPLE_LENGTHS: torch.tensor(lengths)} | beside)


def test_the_memory_of_each_sample_of_a_row_is_counted() -> None:
    padded, packed = both_ways()
    model = small_model(with_encoder=False)
    assert model.describe_batch(packed).groups == model.describe_batch(padded).groups == [3, 3, 3]

"""Greedy answers: the same in a padded batch, through pages or features, and they end where they should."""

from __future__ import annotations

import pytest
import torch
from support.models import PLACEHOLDER, VISION, small_model

from ocrmem.model.compatibility import BatchError


def prompt(length: int, memory: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, 64, (1, length), generator=source)
    ids[0, 1 : 1 + memory] = PLACEHOLDER
    return ids, torch.randn(memory, VISION, generator=source)


def step_by_step(model, ids, features, count):
    """Greedy decoding with forward alone, the whole sequence each time."""
    new = []
    for _ in range(count):
        logits = model(ids, memory_features=features).logits[0, -1]
        new.append(int(logits.argmax()))
        ids = torch.cat([ids, torch.tensor([[new[-1]]])], dim=1)
    return new


@pytest.fixture
def model():
    model = small_model(with_encoder=False)
    model.base_llm_model.generation_config.eos_token_id = None
    return model


def test_generate_is_greedy_over_forward(model):
    ids, features = prompt(20, 6, 0)
    found = model.generate(ids, memory_features=features, max_new_tokens=8)
    assert found.tolist() == [step_by_step(model, ids, features, 8)]


def test_a_row_of_a_left_padded_batch_answers_as_it_does_alone(model):
    rows = [prompt(20, 6, 0), prompt(13, 0, 1), prompt(17, 9, 2)]
    ids = torch.zeros(3, 20, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, (row, _) in enumerate(rows):
        ids[number, 20 - row.shape[1] :] = row
        mask[number, 20 - row.shape[1] :] = 1
    features = torch.cat([features for _, features in rows])
    together = model.generate(ids, mask, memory_features=features, max_new_tokens=6)
    for number, (row, own) in enumerate(rows):
        assert together[number].tolist() == step_by_step(model, row, own, 6)


def test_right_padding_is_refused(model):
    ids, features = prompt(10, 2, 0)
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    with pytest.raises(BatchError, match="Pad on the left"):
        model.generate(ids, mask, memory_features=features, max_new_tokens=2)


def test_a_row_ends_at_the_end_token_and_is_filled_with_padding(model):
    ids, features = prompt(20, 6, 0)
    free = model.generate(ids, memory_features=features, max_new_tokens=6)[0].tolist()
    end = free[1]
    for eos in (end, [end, 63]):
        found = model.generate(ids, memory_features=features, max_new_tokens=6, eos_token_id=eos, pad_token_id=0)
        assert found[0].tolist() == free[: free.index(end) + 1]
    pair = model.generate(
        ids.repeat(2, 1), memory_features=torch.cat([features, -features]), max_new_tokens=6, eos_token_id=end
    )
    assert set(pair[0].tolist()[free.index(end) + 1 :]) <= {0}


def test_the_generation_config_s_end_token_is_the_default():
    model = small_model(with_encoder=False)
    ids, features = prompt(20, 6, 0)
    model.base_llm_model.generation_config.eos_token_id = None
    free = model.generate(ids, memory_features=features, max_new_tokens=4)[0].tolist()
    model.base_llm_model.generation_config.eos_token_id = free[0]
    model.base_llm_model.generation_config.pad_token_id = None
    assert model.generate(ids, memory_features=features, max_new_tokens=4)[0].tolist() == free[:1]


def test_sampling_settings_of_the_base_are_not_followed(model):
    settings = model.base_llm_model.generation_config
    settings.do_sample, settings.temperature, settings.top_k = True, 5.0, 50
    ids, features = prompt(20, 6, 0)
    answers = {tuple(model.generate(ids, memory_features=features, max_new_tokens=6)[0].tolist()) for _ in range(3)}
    assert answers == {tuple(step_by_step(model, ids, features, 6))}


def test_pages_give_the_same_answer_as_their_features():
    model = small_model()
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(5))
    kept = torch.arange(64)[None] % 5 == 0
    ids, _ = prompt(24, int(kept.sum()), 0)
    with torch.no_grad():
        features = model.ocr_embed(pixels)[kept]
    by_pages = model.generate(ids, pixel_values=pixels, page_kept=kept, max_new_tokens=5)
    assert torch.equal(by_pages, model.generate(ids, memory_features=features, max_new_tokens=5))


def test_generating_in_train_mode_leaves_the_mode_and_uses_the_cache(model):
    model.train()
    model.gradient_checkpointing_enable()
    ids, features = prompt(20, 6, 0)
    lengths = []
    model.base_llm_model.model.layers[0].register_forward_hook(lambda _m, a, _o: lengths.append(a[0].shape[1]))
    model.generate(ids, memory_features=features, max_new_tokens=4)
    assert lengths == [20, 1, 1, 1]
    assert model.base_llm_model.training
    assert not any(p.grad is not None for p in model.parameters())

"""The prefix cache: a sequence is read from where it differs from the last one, and answered as if read whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import PLACEHOLDER, VISION, small_base, small_config
from support.sessions import Read
from transformers import DynamicCache

from ocrmem.model.compatibility import BatchError
from ocrmem.model.modeling import MEMModel
from ocrmem.model.prefix_cache import PrefixCache

SLIDING = {
    "seed": 1,  # whose answer has no placeholder, as a trained model's has none
    "use_sliding_window": True,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
MEMORY, NEW = 10, 5  # vision tokens, and tokens of an answer
Question = tuple[torch.Tensor, torch.Tensor]


def new_model(**base: Any) -> MEMModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MEMModel(small_config(), small_base(**base)).eval()
    model.base_llm_model.generation_config.eos_token_id = None
    return model


def question(tail: list[int], changed: int | None = None) -> Question:
    """A token, memory, two more, and a tail; one vision token may be changed."""
    source = torch.Generator().manual_seed(1)
    features = torch.randn(MEMORY, VISION, generator=source)
    if changed is not None:
        features[changed] += 1
    return torch.tensor([[6, *[PLACEHOLDER] * MEMORY, 7, 8, *tail]]), features


@pytest.fixture(params=[{}, SLIDING], ids=["full", "sliding"])
def model(request: pytest.FixtureRequest) -> MEMModel:
    return new_model(**request.param)


def answer(model: MEMModel, asked: Question, prefix: PrefixCache | None = None) -> list[int]:
    ids, features = asked
    return model.generate(ids, memory_features=features, max_new_tokens=NEW, prefix=prefix)[0].tolist()


def test_only_what_differs_is_read_and_the_answers_stay(model: MEMModel) -> None:
    prefix, read = PrefixCache(model.base_llm_model.config, PLACEHOLDER), Read(model)
    before = 1 + MEMORY + 2
    first = question([20, 21, 22])
    said = answer(model, first)
    read.tokens()
    follow_up = [20, 21, 22, *said, 30, 31]
    for asked, expected in (
        (first, before + 3),
        (question([20, 23]), 1),  # another question of the same memory
        (question([24, 25]), 2),
        (question([24, 25]), 1),  # the same once more
        (question([20, 21, 22]), 3),
        (question(follow_up), 3),  # the answer was read, but for its last token
        (question([24], changed=4), before - 5 + 1),  # memory differs from its fifth token on
        (question([24, 26], changed=4), 1),
    ):
        found = answer(model, asked, prefix)
        assert read.tokens() == expected
        assert len(prefix) == asked[0].shape[1] + NEW - 1, "one sequence is kept, whatever came before"
        assert found == answer(model, asked)
        read.tokens()


def test_memory_of_another_length_is_not_taken_for_the_same(model: MEMModel) -> None:
    prefix, read = PrefixCache(model.base_llm_model.config, PLACEHOLDER), Read(model)
    ids, features = question([20, 21])
    for kept in (MEMORY, 4, 7, MEMORY):
        shorter = torch.cat([ids[:, : 1 + kept], ids[:, 1 + MEMORY :]], dim=1), features[:kept]
        found = answer(model, shorter, prefix)
        read.tokens()
        assert found == answer(model, shorter)
        read.tokens()


def test_a_reading_that_is_broken_off_leaves_nothing_behind() -> None:
    model = new_model()
    prefix = PrefixCache(model.base_llm_model.config, PLACEHOLDER)
    answer(model, question([20]), prefix)
    hook = model.base_llm_model.model.layers[1].register_forward_pre_hook(_interrupt)
    with pytest.raises(KeyboardInterrupt):
        answer(model, question([21]), prefix)
    hook.remove()
    assert len(prefix) == 0
    assert answer(model, question([21]), prefix) == answer(model, question([21]))


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_model_whose_state_cannot_go_back_reads_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model()
    prefix, read = PrefixCache(model.base_llm_model.config, PLACEHOLDER), Read(model)
    monkeypatch.setattr(DynamicCache, "is_croppable", False)
    for _ in range(2):
        answer(model, question([20, 21]), prefix)
        assert read.tokens() == 1 + MEMORY + 4


def test_a_prefix_of_several_rows_is_refused() -> None:
    model = new_model()
    ids, features = question([20])
    prefix = PrefixCache(model.base_llm_model.config, PLACEHOLDER)
    with pytest.raises(BatchError, match="is for one row"):
        model.generate(ids.repeat(2, 1), memory_features=features.repeat(2, 1), max_new_tokens=1, prefix=prefix)

"""The order of samples: the same from seed and position alone, short memory first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from ocrmem.errors import TrainingError
from ocrmem.training.curriculum import RunSampler, memory_lengths

LENGTHS = [9, 1, 8, 2, 7, 3, 6, 4, 5, 0]


def sampler(**changes):
    values = {"lengths": LENGTHS, "batch": 4, "max_steps": 20, "share": 0.5, "seed": 7}
    return RunSampler(**(values | changes))


def test_pool_grows_linearly_and_then_is_everything() -> None:
    growing = sampler()
    assert [growing.pool_size(step) for step in range(12)] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]


def test_no_step_draws_a_sample_that_is_not_let_in_yet() -> None:
    growing = sampler()
    for step in range(growing.max_steps):
        longest = sorted(LENGTHS)[growing.pool_size(step) - 1]
        assert max(LENGTHS[index] for index in growing.step_indices(step)) <= longest


def test_equally_long_samples_are_let_in_together() -> None:
    assert sampler(lengths=[3, 3, 3, 3, 5, 5, 5, 5]).pool_size(0) == 4


def test_small_pool_is_repeated_evenly() -> None:
    drawn = sampler(batch=6).step_indices(1)
    assert sorted(drawn.count(index) for index in set(drawn)) == [3, 3]


def test_after_the_curriculum_every_sample_comes_once_an_epoch() -> None:
    growing = sampler(batch=5)
    later = [index for step in range(10, 20) for index in growing.step_indices(step)]
    for epoch in range(5):
        assert sorted(later[epoch * 10 : (epoch + 1) * 10]) == list(range(10))
    assert later[:10] != later[10:20]


def test_order_depends_on_seed_and_step_alone() -> None:
    assert list(sampler()) == list(sampler())
    assert list(sampler()) != list(sampler(seed=8))
    tail_first = sampler()
    tail = [tail_first.step_indices(step) for step in (19, 3, 12)]
    assert tail == [list(sampler())[step * 4 : step * 4 + 4] for step in (19, 3, 12)]


def test_length_is_that_of_the_run() -> None:
    assert len(sampler()) == 80 == len(list(sampler()))


def test_curriculum_over_the_whole_run_and_a_share_that_rounds_to_no_step() -> None:
    assert sampler(share=1.0).pool_size(19) == 10
    assert sampler(share=0.01).pool_size(0) == 10


def test_without_a_curriculum_epochs_are_shuffled_and_batches_run_on_over_their_ends() -> None:
    plain = sampler(share=0.0, batch=4, max_steps=5)
    order = list(plain)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:] != list(range(10))
    assert all(len(plain.step_indices(step)) == 4 for step in range(5))


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 4), (2, 2), (4, 1), (3, 4), (12, 1)])
def test_every_number_of_processes_sees_the_same_samples_at_each_step(
    share: float, processes: int, accumulation: int
) -> None:
    # 12 samples a step out of 10: epochs end within steps.
    order = sampler(share=share, batch=12, max_steps=7)
    batches = BatchSampler(order, 12 // (processes * accumulation), drop_last=False)
    parts = [list(BatchSamplerShard(batches, processes, rank)) for rank in range(processes)]
    for step in range(7):
        own = slice(step * accumulation, (step + 1) * accumulation)
        seen = [index for part in parts for batch in part[own] for index in batch]
        assert sorted(seen) == sorted(order.step_indices(step))
    assert {len(part) for part in parts} == {7 * accumulation}


def test_lengths_come_from_attribute_or_key() -> None:
    assert memory_lengths([SimpleNamespace(memory_tokens=3), {"memory_tokens": 0}]) == [3, 0]


def test_sample_without_a_length_is_named() -> None:
    with pytest.raises(TrainingError, match=r"train_dataset\[1\].*memory_tokens.*curriculum=0"):
        memory_lengths([{"memory_tokens": 1}, {"text": "x"}])

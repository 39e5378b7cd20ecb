"""Tokens of a run: bounds without a dataset, its own lengths with one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.models import small_settings, write_conversations

from ocrmem.config import RunConfig
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.planning.workload import ASSUMED_ANSWER, longest_of, longest_of_neighbours, workload


def test_the_expected_longest_is_the_mean_over_all_draws():
    lengths = np.array([7, 3, 11, 3])
    draws = [max(draw) for draw in itertools.product(lengths, repeat=3)]
    assert longest_of(lengths, 3) == pytest.approx(np.mean(draws))
    assert longest_of(lengths, 1) == pytest.approx(lengths.mean())


def test_neighbours_of_the_sorted_lengths_share_a_batch():
    assert longest_of_neighbours(np.array([9, 1, 8, 2, 7]), 2) == pytest.approx((2 + 8 + 9) / 3)


def test_without_a_dataset_every_row_is_full(tmp_path):
    config = RunConfig.load("configs/qwen3-8b-8gpu.yaml", [f"paths.dataset={tmp_path / 'none'}"])
    load = workload(config)
    assert load.largest == load.mean
    assert (load.mean.positions, load.mean.memory, load.mean.answers) == (4096, 8 * 256, ASSUMED_ANSWER)
    assert load.pages is None
    assert workload(config, answer_tokens=10).mean.answers == 10


def test_an_assumed_answer_fits_beside_the_memory(tmp_path):
    config = RunConfig.load("params.yaml", [f"paths.dataset={tmp_path / 'none'}"])
    assert workload(config).mean.answers / 64 == 256 - 64 - 2 - 16


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> RunConfig:
    root = tmp_path_factory.mktemp("workload")
    write_conversations(root / "data")
    config = RunConfig.from_dict(small_settings(root))
    build_dataset(config)
    return config


def test_a_datasets_lengths_are_used(rendered):
    dataset = MemoryDataset.open(rendered.paths.dataset)
    samples = dataset.samples("train")
    load = workload(rendered)
    assert load.pages == len(dataset.page_hashes())
    assert load.used == pytest.approx(np.mean([s.sequence_tokens for s in samples]))
    assert load.largest.length == max(s.sequence_tokens for s in samples)
    assert load.largest.memory == 4 * max(s.memory_tokens for s in samples)
    assert load.mean.memory == pytest.approx(4 * np.mean([s.memory_tokens for s in samples]))
    assert load.mean.answers == pytest.approx(4 * np.mean([s.answer_tokens for s in samples]))
    assert load.used < load.mean.length <= load.largest.length


def test_batches_of_like_length_have_less_padding(rendered):
    section = rendered.train.model_copy(update={"group_by_length": True})
    plain, grouped = workload(rendered), workload(rendered.model_copy(update={"train": section}))
    assert grouped.used == plain.used <= grouped.mean.length < plain.mean.length
    assert grouped.largest == plain.largest


def test_packed_batches_have_no_padding(rendered):
    section = rendered.train.model_copy(update={"packing": True})
    load = workload(rendered.model_copy(update={"train": section}))
    assert load.mean.length == pytest.approx(load.used)
    assert load.mean.square_length < load.largest.square_length
    assert not load.mean.padded
    assert not load.largest.padded


def test_one_row_a_batch_has_no_padding(rendered):
    one = rendered.model_copy(update={"train": rendered.train.model_copy(update={"per_device_batch_size": 1})})
    load = workload(one)
    assert load.mean.length == pytest.approx(load.used)
    assert not load.mean.padded
    assert not load.largest.padded


def test_a_dataset_of_other_settings_is_not_used_and_named(rendered):
    render = rendered.render.model_copy(update={"max_pages": 1})
    other = rendered.model_copy(update={"render": render})
    load = workload(other)
    assert load.pages is None
    assert "was made with other settings" in load.notes[0]

"""Batches of like length: less padding, and still an order that is a function of seed and position alone."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.training import logged, standalone_samples, standalone_trainer

from ocrmem.config import RunConfig
from ocrmem.errors import TrainingError
from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.curriculum import GroupedSampler, RunSampler, sequence_lengths


def skewed(count: int, seed: int = 0) -> list[int]:
    """Lengths as conversations have them: many short ones, a long tail."""
    generator = random.Random(seed)
    return [min(20 + int(generator.lognormvariate(4, 0.8)), 512) for _ in range(count)]


def sampler(sequences: list[int], **changes: Any) -> GroupedSampler:
    values = {"lengths": [0] * len(sequences), "batch": 8, "max_steps": 400, "share": 0.0, "seed": 5}
    return GroupedSampler(sequences, **(values | changes))


def padding(run: RunSampler, lengths: list[int], per_device: int) -> float:
    """The share of all batches of ``per_device`` samples that is padding."""
    order = [lengths[index] for index in run]
    batches = [order[at : at + per_device] for at in range(0, len(order), per_device)]
    return 1 - sum(map(sum, batches)) / sum(len(batch) * max(batch) for batch in batches)


@pytest.mark.parametrize(("batch", "per_device"), [(8, 8), (64, 64), (64, 4)])
def test_padding_is_under_five_per_cent(batch: int, per_device: int) -> None:
    lengths = skewed(5000)
    grouped = sampler(lengths, batch=batch)
    plain = RunSampler([0] * len(lengths), batch, 400, 0.0, 5)
    assert padding(plain, lengths, per_device) > 0.25
    assert padding(grouped, lengths, per_device) < 0.05


@pytest.mark.parametrize("size", [1, 5, 7, 8, 9, 50, 401, 1203])
@pytest.mark.parametrize("batch", [1, 4, 8, 30])
def test_every_epoch_has_every_sample_once(size: int, batch: int) -> None:
    steps = -(-5 * size // batch)
    order = list(sampler(skewed(size), batch=batch, max_steps=steps))
    assert len(order) == steps * batch
    if size >= batch:  # a batch that two epochs share is sorted across the border
        for epoch in range(4):
            inside = order[-(-epoch * size // batch) * batch : (epoch + 1) * size // batch * batch]
            assert set(Counter(inside).values()) <= {1}
    times = Counter(order)
    assert max(times.values()) - min(times[index] for index in range(size)) <= 1


def test_order_depends_on_seed_and_position_alone() -> None:
    lengths = skewed(301)
    whole = list(sampler(lengths))
    assert whole == list(sampler(lengths))
    assert whole != list(sampler(lengths, seed=6))
    asked_backwards = sampler(lengths)
    for step in (399, 0, 120, 38, 37):
        assert asked_backwards.step_indices(step) == whole[step * 8 : step * 8 + 8]


def test_batches_come_in_no_order_of_length() -> None:
    lengths = skewed(400)
    longest = [max(lengths[index] for index in sampler(lengths).step_indices(step)) for step in range(50)]
    assert sorted(longest) != longest
    assert sorted(longest, reverse=True) != longest


def test_while_a_curriculum_grows_it_alone_says_which_samples_a_step_has() -> None:
    lengths = skewed(100)
    changes = {"lengths": lengths, "max_steps": 20, "share": 0.5}
    grouped, plain = sampler(lengths, **changes), RunSampler(lengths, 8, 20, 0.5, 5)
    for step in range(10):
        drawn = grouped.step_indices(step)
        assert sorted(drawn) == sorted(plain.step_indices(step))
        assert [lengths[index] for index in drawn] == sorted(lengths[index] for index in drawn)
    later = [index for step in range(10, 20) for index in grouped.step_indices(step)]
    assert len(set(later)) == 80, "an epoch over everything follows"


def test_lengths_come_from_attribute_or_key() -> None:
    assert sequence_lengths([SimpleNamespace(sequence_tokens=3), {"sequence_tokens": 0}, {"input_ids": [1, 2]}]) == [
        3,
        0,
        2,
    ]


def test_a_sample_without_a_length_is_named() -> None:
    with pytest.raises(TrainingError, match=r"train_dataset\[1\].*sequence_tokens.*group_by_length"):
        sequence_lengths([{"sequence_tokens": 1}, {"text": "x"}])


@pytest.mark.parametrize(("wanted", "strategy"), [(True, "group_by_length"), (False, "random")])
def test_the_setting_reaches_the_trainer_under_hugging_face_s_name(wanted: bool, strategy: str) -> None:
    config = RunConfig.model_validate({"model": {"device": "cpu"}, "train": {"group_by_length": wanted}})
    assert AdapterTrainingArguments.from_run_config(config).train_sampling_strategy == strategy


def seen_by(directory: Path, **changes: Any) -> list[list[str]]:
    """The samples of every optimizer step of a training, sorted by name."""
    samples = [sample | {"id": str(index)} for index, sample in enumerate(standalone_samples(23))]
    trainer = standalone_trainer(directory, samples=samples, train_sampling_strategy="group_by_length", **changes)
    seen: list[str] = []
    real = trainer._guard.saw
    trainer._guard.saw = lambda loss, names: (seen.extend(names), real(loss, names))[1]  # type: ignore[method-assign]
    trainer.train()
    return [sorted(seen[at : at + 4]) for at in range(0, len(seen), 4)]


@pytest.mark.parametrize("curriculum", [0.0, 0.5])
def test_a_batch_cut_into_accumulation_steps_has_the_same_samples(tmp_path: Path, curriculum: float) -> None:
    whole = seen_by(tmp_path / "whole", curriculum=curriculum)
    parts = seen_by(
        tmp_path / "parts", curriculum=curriculum, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    assert whole == parts
    assert len(whole) == 6


def test_a_resumed_run_keeps_the_order(tmp_path: Path) -> None:
    changes = {"train_sampling_strategy": "group_by_length", "save_steps": 4}
    whole = standalone_trainer(tmp_path / "run", **changes)
    whole.train()
    expected = logged(whole)
    resumed = standalone_trainer(tmp_path / "run", **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert logged(resumed) == expected
    ungrouped = standalone_trainer(tmp_path / "run", save_steps=4)
    with pytest.raises(TrainingError, match="train_sampling_strategy was 'group_by_length' and is 'random'"):
        ungrouped.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))

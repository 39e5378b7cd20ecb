"""Batches that worker processes make ahead: the same losses, typed errors, nobody left behind."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.training import collate, logged, standalone_samples, standalone_trainer

from ocrmem.errors import DataError
from ocrmem.training.data_workers import CarriedDataset


class Spoilt(list[dict[str, Any]]):
    """Samples of which one cannot be read."""

    def __getitem__(self, index: Any) -> Any:
        if index == 7:
            raise DataError.of("samples-00000.parquet", "has changed", "Run `ocrmem render` again")
        return super().__getitem__(index)


def refusing(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A collator that one sample does not suit."""
    for sample in samples:
        if sample["id"] == "s7":
            raise DataError.of("sample s7", "was made with other tokens", "Run `ocrmem render` again")
    return collate(samples)


def wait_until_alone() -> None:
    """Until no forked child is there; DataLoader ends its workers when their iterator is collected."""
    gc.collect()
    this, end = psutil.Process(), time.monotonic() + 300
    while left := [child.pid for child in this.children() if is_fork(child, this)]:
        assert time.monotonic() < end, f"worker processes were left behind: {left}"
        time.sleep(0.05)


def is_fork(child: psutil.Process, parent: psutil.Process) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE and child.cmdline() == parent.cmdline()
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_workers_change_no_loss_and_are_gone_afterwards(tmp_path: Path, strategy: str) -> None:
    samples = [sample | {"sequence_tokens": len(sample["input_ids"])} for sample in standalone_samples()]
    losses = []
    for workers in (0, 2):
        trainer = standalone_trainer(
            tmp_path / str(workers),
            samples=samples,
            dataloader_num_workers=workers,
            train_sampling_strategy=strategy,
            curriculum=0.5,
        )
        trainer.train()
        losses.append(logged(trainer))
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]
    wait_until_alone()


def test_resuming_with_workers_gives_the_same_losses(tmp_path: Path) -> None:
    whole = standalone_trainer(tmp_path / "whole")
    whole.train()
    trainer = standalone_trainer(tmp_path / "whole", dataloader_num_workers=1)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert trainer.resumed_step == 2
    assert logged(trainer) == logged(whole)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("samples", "collator"), [(Spoilt, collate), (list, refusing)])
def test_an_error_about_a_sample_is_the_same_from_a_worker(
    tmp_path: Path, workers: int, samples: Any, collator: Any
) -> None:
    trainer = standalone_trainer(tmp_path, samples=samples(standalone_samples()), dataloader_num_workers=workers)
    trainer.data_collator = collator
    with pytest.raises(DataError, match="Run `ocrmem render` again") as raised:
        trainer.train()
    assert len(raised.value.problems) == 1
    del raised
    wait_until_alone()


def test_time_without_data_is_counted(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path)
    trainer.data_collator = lambda samples: time.sleep(0.02) or collate(samples)
    trainer.train()
    assert trainer.seconds_without_data >= 6 * 0.02


def test_a_dataset_that_gives_several_samples_at_once_is_asked_for_several() -> None:
    class Several(list[int]):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [10 * index for index in indices]

    assert CarriedDataset(Several([1, 2, 3])).__getitems__([0, 2]) == [0, 20]

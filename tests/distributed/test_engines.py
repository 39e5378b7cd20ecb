"""DDP and ZeRO-1, 2 and 3 on two ranks: the losses and the adapter of one process, resumed or not.

All of it runs in one pair of processes (engines_script.py); the tests read what they wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import small_base
from support.ranks import run_ranks
from support.training import logged, mixed_samples, standalone_trainer

from ocrmem.training.checkpoint import trained_state
from ocrmem.training.trainer import AdapterOnlyTrainer

pytestmark = pytest.mark.slow

ENGINES = ("ddp", "zero1", "zero2", "zero3")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Results = list[dict[str, Any]]


def adapter(trainer: AdapterOnlyTrainer) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in trained_state(trainer.model).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    """One process, without any engine."""
    trainer = standalone_trainer(folder / "one", samples=mixed_samples())
    trainer.train()
    return {"log": logged(trainer), "proj": adapter(trainer)}


@pytest.fixture(scope="module")
def ranks(folder: Path, one: dict[str, Any]) -> Results:
    """What each rank did; it also resumes from what `one` left."""
    for name, dtype in DTYPES.items():
        small_base().to(dtype).save_pretrained(folder / f"base-{name}")
    return run_ranks("distributed/engines_script.py", folder)


def assert_close(found: dict[str, Any], expected: dict[str, Any], *, loss: float = 1e-4, proj: float = 1e-5) -> None:
    assert [row[0] for row in found["log"]] == [row[0] for row in expected["log"]]
    for one_row, other in zip(found["log"], expected["log"], strict=True):
        assert one_row[1] == pytest.approx(other[1], abs=loss)  # loss
        assert one_row[2] == pytest.approx(other[2], rel=1e-4)  # gradient norm
        assert one_row[3] == pytest.approx(other[3], rel=1e-9)  # learning rate
    assert found["proj"].keys() == expected["proj"].keys()
    for name, values in found["proj"].items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(expected["proj"][name]), rtol=0, atol=proj)


@pytest.mark.parametrize(
    "run",
    [
        *ENGINES,
        "zero2 accumulating",
        "zero3 offloaded",
        "zero3 checkpointed",
        *(f"{engine} {name}" for engine in ("ddp", "zero2", "zero3") for name in ["float32"]),
    ],
)
def test_two_ranks_train_as_one_process_does(run: str, ranks: Results, one: dict[str, Any]) -> None:
    for rank in ranks:
        assert_close(rank[run], one)


@pytest.mark.parametrize("engine", ENGINES)
def test_resumed_run_equals_the_uninterrupted_one(engine: str, ranks: Results) -> None:
    assert_close(ranks[0][f"{engine} resumed"], ranks[0][engine], loss=5e-5, proj=1e-6)
    assert len(ranks[0][f"{engine} resumed"]["memory"]) == 4  # steps 3 to 6


@pytest.mark.parametrize("run", ["zero3 from one process", "zero1 from zero3"])
def test_checkpoint_fits_another_number_of_processes_and_another_engine(
    run: str, ranks: Results, one: dict[str, Any]
) -> None:
    assert_close(ranks[0][run], one, loss=5e-5)


def test_checkpoint_of_two_zero_ranks_fits_one_plain_process(folder: Path, ranks: Results, one: dict[str, Any]) -> None:
    trainer = standalone_trainer(folder / "back", samples=mixed_samples())
    trainer.train(resume_from_checkpoint=str(folder / "zero2" / "checkpoint-2"))
    assert_close({"log": logged(trainer), "proj": adapter(trainer)}, one, loss=5e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_rank_without_memory_neither_hangs_nor_fails(engine: str, ranks: Results) -> None:
    steps = list(zip(*(rank[engine]["memory"] for rank in ranks), strict=True))
    assert any(first == 0 and other > 0 for first, other in steps), steps
    # With accumulation a rank has none in one micro-batch and some in the next, in its own order.
    small = list(zip(*(rank["zero2 accumulating"]["memory"] for rank in ranks), strict=True))
    assert (0, 0) in small
    assert any(first == 0 < other or other == 0 < first for first, other in small)


@pytest.mark.parametrize("precision", DTYPES)
def test_frozen_weights_have_the_same_hash_partitioned_or_not(precision: str, ranks: Results) -> None:
    hashes = {tuple(rank[f"{engine} {precision}"]["frozen"]) for rank in ranks for engine in ("ddp", "zero2", "zero3")}
    assert len(hashes) == 1
    assert len(set(hashes.pop())) == 1  # before and after


def test_bfloat16_base_gives_every_engine_the_losses_of_ddp_and_leaves_proj_in_float32(ranks: Results) -> None:
    for engine in ("zero2", "zero3"):
        assert_close(ranks[0][f"{engine} bfloat16"], ranks[0]["ddp bfloat16"])
        assert ranks[0][f"{engine} bfloat16"]["dtypes"] == ["torch.float32"]
    assert ranks[0]["ddp bfloat16"]["log"] != ranks[0]["ddp float32"]["log"]


@pytest.mark.parametrize("precision", DTYPES)
def test_zero3_loads_a_share_a_rank_in_the_base_models_own_precision(precision: str, ranks: Results) -> None:
    size = sum(parameter.numel() for parameter in small_base().parameters()) * DTYPES[precision].itemsize
    for rank in ranks:
        assert rank[f"ddp {precision}"]["bytes"] == size
        assert size / 2 <= rank[f"zero3 {precision}"]["bytes"] < 0.55 * size


@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_ranks_share_the_mapped_file_and_copy_none_of_it(engine: str, ranks: Results) -> None:
    for rank in ranks:
        mapped = rank[f"{engine} float32"]["mapped"]
        assert mapped["Size"] > 0
        assert mapped["Anonymous"] == 0


@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_loss_that_is_not_finite_on_one_rank_stops_all_with_its_step_and_samples(engine: str, ranks: Results) -> None:
    reported = {rank["nan"][engine] for rank in ranks}
    assert len(reported) == 1
    message = reported.pop()
    assert "step 3: the loss is nan for the samples s3, s1 on process 1." in message
    assert "process 0" not in message


def test_rank_that_cannot_write_its_checkpoint_stops_all_with_its_error(folder: Path, ranks: Results) -> None:
    for rank in ranks:
        assert "the checkpoint of step 2 could not be written" in rank["full disk"]
        assert "File too large" in rank["full disk"]
    assert not list((folder / "full").iterdir())


def test_process_group_is_left(ranks: Results) -> None:
    assert [rank["group"] for rank in ranks] == [False, False]


@pytest.mark.parametrize("engine", ENGINES)
def test_checkpoint_is_small_and_holds_nothing_frozen(engine: str, folder: Path, ranks: Results) -> None:
    del ranks
    path = folder / engine / "checkpoint-6"
    sizes = {file.name: file.stat().st_size for file in path.iterdir()}
    assert set(sizes) == {
        "complete.json",
        "optimizer.safetensors",
        "proj.safetensors",
        "rng_state_0.pth",
        "rng_state_1.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
    weights = 4 * sum(parameter.numel() for parameter in standalone_trainer(folder / "size").model.proj.parameters())
    assert sizes["proj.safetensors"] < weights + 1000
    assert sizes["optimizer.safetensors"] < 2 * weights + 2000

"""The ZeRO table, and reading the way of cutting from the settings."""

from __future__ import annotations

import json

import pytest

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError
from ocrmem.families import Shape
from ocrmem.planning.shapes import Parameters
from ocrmem.planning.sharding import Sharding, sharding, states

SHAPE = Shape(layers=2, hidden=100, heads=4, kv_heads=2, head=25, inner=300, vocabulary=1000, head_norms=True)
# Proj of 1000 elements in float32; a base of 10^10 elements in two bytes each.
PARAMETERS = Parameters(1000, 4000, 10**10, 2 * 10**10, 10**8, None)
BUCKET = 2 * 100**2 * 4
LIVE = 2 * (10**9 + 0.9 * 100**2)  # two bytes for each weight held whole, and for the prefetched ones


# frozen, gathered, weights, gradients, optimizer, host; over four processes
TABLE = {
    (0, "none"): (2e10, 0, 4000, 4000 + 4000, 8000, 0),
    (1, "none"): (2e10, 0, 4000, 4000 + BUCKET, 2000 + 1000, 0),
    (2, "none"): (2e10, 0, 4000, 1000 + BUCKET, 2000 + 1000, 0),
    (3, "none"): (5e9, LIVE, 1000, 1000 + BUCKET, 2000 + 1000, 0),
    (2, "optimizer"): (2e10, 0, 4000, 1000 + BUCKET, 0, 3000 + 1000),
    (3, "all"): (0, LIVE, 0, 1000 + BUCKET, 0, 3000 + 1000 + 5e9 + 1000),
}


@pytest.mark.parametrize(("stage", "offload"), TABLE)
def test_each_stage_cuts_what_it_says(stage, offload):
    held = states(PARAMETERS, SHAPE, Sharding(stage, offload, 4))
    expected = TABLE[stage, offload]
    assert (held.frozen, held.gathered, held.proj, held.gradients, held.optimizer, held.host) == expected
    assert held.total == sum(expected[:-1])


def test_one_process_has_no_bucket_and_nothing_to_gather():
    assert states(PARAMETERS, SHAPE, Sharding()).gradients == 4000
    assert states(PARAMETERS, SHAPE, Sharding(3, "none", 1)).gathered == 0


def test_no_more_is_gathered_than_there_is_and_never_less_than_the_largest_tensor():
    small = Parameters(1000, 4000, 10**6, 2 * 10**6, 10**5, None)
    assert states(small, SHAPE, Sharding(3, "none", 4)).gathered == 2 * 10**6
    limited = Sharding(3, "none", 4, live=5e7)
    assert states(PARAMETERS, SHAPE, limited).gathered == 2 * (10**8 + 0.9 * 100**2)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Sharding(processes=8)),
        (["train.deepspeed=zero1"], Sharding(1, "none", 8)),
        (["train.deepspeed=zero2", "train.offload=optimizer"], Sharding(2, "optimizer", 8)),
        (["train.deepspeed=zero3", "train.offload=all"], Sharding(3, "all", 8)),
    ],
)
def test_the_settings_are_read(overrides, expected):
    assert sharding(RunConfig.load("configs/qwen3-8b-8gpu.yaml", overrides)) == expected


def test_a_deepspeed_file_is_read(tmp_path):
    zero = {"stage": 3, "stage3_max_live_parameters": 3e8}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": zero}))
    config = RunConfig.load("configs/qwen3-8b-8gpu.yaml", [f"train.deepspeed={path}", "train.offload=all"])
    assert sharding(config) == Sharding(3, "all", 8, 3e8)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["train.offload=optimizer"], "train.offload"),
        (["train.deepspeed=zero2", "train.offload=all"], "train.offload"),
        (["train.deepspeed=zero4"], "train.deepspeed"),
        (["train.deepspeed=zero2", "model.precision=float16"], "model.precision"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_any_plan(overrides, field):
    with pytest.raises(ConfigError, match=field):
        RunConfig.load("configs/qwen3-8b-8gpu.yaml", overrides)

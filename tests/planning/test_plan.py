"""The whole plan: presets fit where they say, refusals, remedies, times, and what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ocrmem.cli import build_parser, main
from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError
from ocrmem.planning import plan as planning
from ocrmem.planning.flops import flops
from ocrmem.planning.gpus import GPUS, find_gpu
from ocrmem.planning.memory_need import ModelFacts, memory_need
from ocrmem.planning.plan import plan
from ocrmem.planning.plan_text import WIDTH
from ocrmem.planning.sharding import Sharding
from ocrmem.planning.workload import BatchShape

PRESETS = {
    "qwen3-8b-8gpu.yaml": ("h100", "h200", "a100-80"),
    "qwen3-8b-4gpu-24gb.yaml": ("l4", "rtx4090", "rtx3090"),
    "qwen3-0.6b-1gpu.yaml": ("l4", "rtx4090", "rtx3090"),
}
REFUSED = {"ocr-mem-2025-12.yaml"}
ON_A_CPU = {"english.yaml"}
EIGHT = "configs/qwen3-8b-8gpu.yaml"
TWO_ROWS = ["train.per_device_batch_size=2", "train.gradient_accumulation_steps=8"]
FOUR = "configs/qwen3-8b-4gpu-24gb.yaml"
ANSWERS = ["train.stages=[]", "train.max_steps=2000"]  # one stage


@pytest.fixture(autouse=True)
def no_dataset(monkeypatch, tmp_path):
    """Presets are planned from the repository's root, where a dataset may lie after a demo."""
    loaded = RunConfig.load
    elsewhere = f"paths.dataset={tmp_path / 'none'}"
    monkeypatch.setattr(RunConfig, "load", lambda path, overrides=(): loaded(path, [elsewhere, *overrides]))


def test_every_preset_is_planned_for():
    assert {path.name for path in Path("configs").glob("*.yaml")} == PRESETS.keys() | REFUSED | ON_A_CPU


@pytest.mark.parametrize(("name", "gpu"), [(name, gpu) for name, gpus in PRESETS.items() for gpu in gpus])
def test_every_preset_fits_the_gpu_it_is_named_for(name, gpu):
    memory = plan(RunConfig.load(f"configs/{name}"), gpu=gpu)["memory"]
    assert memory["fits"]
    assert gpu in memory["fits_on"]
    assert memory["total_bytes"] == memory["ways"][memory["chosen"]]["total"] <= GPUS[gpu].memory_bytes


def test_the_plan_named_in_a_presets_comment_is_one_that_fits():
    for name, gpus in PRESETS.items():
        named = re.search(
            rf"ocrmem train --plan --config configs/{name} --gpu (\S+)", Path("configs", name).read_text()
        )
        assert named
        assert named[1] in gpus


def test_the_small_gpus_need_what_their_preset_sets():
    found = plan(RunConfig.load(FOUR, ["train.activation_checkpointing=false"]), gpu="l4")["memory"]
    assert not found["fits"]
    found = plan(RunConfig.load(FOUR, ["train.deepspeed=null", "train.processes=1", "train.global_batch_size=32"]))
    assert found["memory"]["total_bytes"] > 0.95 * GPUS["l4"].memory_bytes


def test_what_does_not_fit_gets_changes_that_do():
    wide = ["train.per_device_batch_size=4", "train.gradient_accumulation_steps=4"]
    found = plan(RunConfig.load(EIGHT, wide), gpu="a100-80")["memory"]
    assert not found["fits"]
    assert found["remedies"]
    for remedy in found["remedies"]:
        changes = [f"{name}={str(value).lower()}" for name, value in remedy["settings"].items()]
        again = plan(RunConfig.load(EIGHT, [*wide, *changes]), gpu="a100-80")["memory"]
        assert again["fits"]
        assert again["total_bytes"] == pytest.approx(remedy["total_bytes"])


def test_parts_add_up_and_are_in_base_units():
    found = plan(RunConfig.load(EIGHT, ANSWERS), gpu="h100")
    way = found["memory"]["ways"]["none"]
    assert way["total"] == pytest.approx(sum(v for name, v in way.items() if name not in ("total", "host")))
    assert way["frozen"] == 16_381_470_720
    assert found["features"]["page_bytes"] == 256 * 2048 * 2
    assert found["features"]["bytes_per_1000_pages"] == 1_048_576_000
    assert (found["tokens"]["global_batch"], found["tokens"]["step"]) == (128, 128 * 4096)
    assert found["tokens"]["total"] == 2000 * 128 * 4096
    json.dumps({name: value for name, value in found.items() if name != "summary"}, allow_nan=False)


def test_times_follow_from_operations_peak_and_mfu():
    found = plan(RunConfig.load(EIGHT, ANSWERS), gpu="h100", mfu=0.5, hours=10)
    time, work = found["time"], found["flops"]
    seconds = work["executed"] / (0.5 * 989.4e12)
    assert time["seconds_per_step"] == pytest.approx(16 * seconds)
    assert time["seconds"] == pytest.approx(2000 * 16 * seconds)
    assert time["gpu_seconds"] == pytest.approx(8 * time["seconds"])
    assert time["tokens_per_second"] == pytest.approx(128 * 4096 / (16 * seconds))
    assert time["wanted"]["tokens_per_second"] == pytest.approx(2000 * 128 * 4096 / 36_000)
    # At the MFU that the wall time asks for, the run takes that wall time.
    again = plan(RunConfig.load(EIGHT, ANSWERS), gpu="h100", mfu=time["wanted"]["mfu"])["time"]
    assert again["seconds"] == pytest.approx(36_000)


@pytest.mark.parametrize(
    ("changes", "gpu", "share", "origin"),
    [
        ([], "h100", 0.43, "measured: "),
        ([*TWO_ROWS, "train.packing=true"], "h100", 0.43, "measured: "),
        (TWO_ROWS, "h100", 0.35, "measured: "),
        (["model.precision=float32"], "h100", 0.35, "assumed"),
        ([], "h200", 0.35, "assumed"),
    ],
)
def test_the_share_of_the_peak_is_the_one_measured_for_such_rows_on_that_gpu(changes, gpu, share, origin):
    found = plan(RunConfig.load(EIGHT, changes), gpu=gpu)
    (line,) = (line for line in found["assumptions"] if line["name"].startswith("share of the peak"))
    assert found["time"]["mfu"] == line["value"] == share
    assert line["origin"].startswith(origin)


# ../docs/plan.md, "What was checked": Qwen3-8B's shape on an H100, 256 supervised tokens a row.
@pytest.mark.parametrize(
    ("rows", "length", "padded", "checkpointing", "tokens_a_second", "peak_gb"),
    [
        (2, 4096, False, False, 11_743, 62.3),
        (2, 4096, True, False, 9_511, 68.3),
        (8, 1024, False, False, 12_408, 65.1),
        (4, 4096, False, True, 8_873, 26.4),
    ],
)
def test_the_arithmetic_is_that_of_what_an_h100_did(rows, length, padded, checkpointing, tokens_a_second, peak_gb):
    config = RunConfig.load(EIGHT, [f"train.activation_checkpointing={str(checkpointing).lower()}"])
    facts, h100 = ModelFacts.of(config), GPUS["h100"]
    batch = BatchShape(rows, length, length**2, rows * 1024, rows * 256, padded, whole_logits=True)
    need = memory_need(config, facts, Sharding(0, "none", 1), batch)
    of_torch = need["total"] - need["context"]  # the measured peaks are torch's own
    assert of_torch - need["fragments"] < peak_gb * 1e9 < of_torch < 1.01 * peak_gb * 1e9
    work = flops(facts.shape, facts.proj, batch, checkpointing=checkpointing).executed
    reached = work / batch.positions * tokens_a_second / h100.half_flops
    assert reached == pytest.approx(h100.share("bfloat16", masked=padded)[0], rel=0.12)


def test_a_wall_time_out_of_reach_says_how_many_gpus_would_reach_it():
    time = plan(RunConfig.load(EIGHT), gpu="h100", hours=1)["time"]
    assert not time["wanted"]["reached"]
    assert time["wanted"]["gpus"] == -(-8 * time["seconds"] // 3600)


def test_zero_3_waits_for_weights_where_the_link_is_slow(monkeypatch):
    time = plan(RunConfig.load(FOUR), gpu="l4")["time"]
    # 3 passes of 3/4 of 16.38 GB at 32 GB/s
    assert time["transfer_seconds_per_batch"] == pytest.approx(3 * 0.75 * 16_381_470_720 / 32e9)
    assert time["bound_by"] == "computation"
    one = ["train.per_device_batch_size=1", "train.gradient_accumulation_steps=32", "model.max_seq_length=600"]
    short = [*one, "model.context_threshold=512", "render.max_pages=1"]
    assert plan(RunConfig.load(FOUR, short), gpu="rtx4090")["time"]["bound_by"] == "moving weights"


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"gpu": "h1000"}, "--gpu"),
        ({"hours": 0}, "--hours"),
        ({"hours": float("nan")}, "--hours"),
        ({"mfu": 1.2}, "--mfu"),
        ({"mfu": 0}, "--mfu"),
        ({"answer_tokens": 4096}, "--answer-tokens"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, place):
    with pytest.raises(ConfigError) as refused:
        plan(RunConfig.load(EIGHT), **arguments)
    assert refused.value.problems[0].place == place


def test_a_cpu_is_measured_and_the_tiny_preset_is_planned_for_it(monkeypatch):
    monkeypatch.setattr(planning, "find_gpu", lambda name: find_gpu("l4") if name == "cpu" else None)
    assert plan(RunConfig.load("params.yaml"))["gpu"]["name"] == "l4"
    cpu = find_gpu("cpu")
    assert 1e8 < cpu.single_flops < 1e13
    assert cpu.memory_bytes > 1e8


def test_the_table_fits_a_terminal_and_names_every_assumption():
    found = plan(RunConfig.load(FOUR), gpu="l4", hours=100)
    lines = found["summary"]
    assert max(map(len, lines)) <= WIDTH + 12  # sentences may be a little longer than tables
    text = "\n".join(lines)
    for part in ("8,190,735,360", "25,178,112", "[zero3]", "Fits: ", "1000 pages", "tokens a second", "are needed"):
        assert part in text
    for assumption in found["assumptions"]:
        assert assumption["name"].split()[0] in text
        assert assumption["origin"]


def test_the_command_line_prints_the_plan_and_one_json_object(capsys, tmp_path):
    assert main(["train", "--plan", "--config", EIGHT, "--gpu", "h100", "--json", "--mfu", "0.4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["time"]["mfu"] == 0.4
    assert main(["train", "--plan", "--config", EIGHT, "--gpu", "h100", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("Fits: ")


def test_the_plan_begins_with_whether_it_fits_hours_and_money():
    found = plan(RunConfig.load(FOUR), gpu="l4", price_per_gpu_hour=0.5)
    hours = found["time"]["gpu_seconds"] / 3600
    assert found["cost"] == {"price_per_gpu_hour": 0.5, "total": pytest.approx(hours / 2)}
    fits, takes, costs = found["summary"][:3]
    assert fits == "Fits: 18.7 GB of 24.0 GB on each of 4 x NVIDIA L4 24GB"
    assert takes.endswith(f"{hours:.0f} GPU hours")
    assert costs == f"Costs {hours / 2:,.2f} at 0.5 a GPU hour"
    wrong = plan(RunConfig.load(FOUR, ["train.activation_checkpointing=false"]), gpu="l4")
    assert wrong["summary"][0].startswith("DOES NOT FIT: ")
    assert wrong["cost"] is None
    assert not any(line.startswith("Costs") for line in wrong["summary"])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--gpu", "h100"], "--gpu"),
        (["--price-per-gpu-hour", "2"], "--price-per-gpu-hour"),
        (["--plan", "--price-per-gpu-hour", "-1"], "--price-per-gpu-hour"),
        (["--hours", "3"], "--hours"),
        (["--plan", "--resume"], "--resume"),
        (["--plan", "--output", "x"], "--output"),
        (["--plan", "--launcher", "kubernetes"], "--launcher"),
        (["--plan", "--run-name", "x"], "--run-name"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(capsys, given, named):
    assert main(["train", "--config", EIGHT, *given]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{named}: ")


def test_options_set_what_is_planned(capsys):
    asked = ["--plan", "--config", EIGHT, "--json", "--deepspeed", "zero3", "--nproc", "4", "--gpu", "l40s"]
    assert main(["train", *asked, "--set", "train.global_batch_size=null"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["chosen"] == "zero3"
    assert found["gpu"]["count"] == 4


def test_help_names_the_options():
    assert "--answer-tokens" in build_parser()._subparsers._group_actions[0].choices["train"].format_help()

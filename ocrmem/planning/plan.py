"""The plan of a run: does it fit, how long does it take, and what would have to change."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, TypedDict

from ocrmem.config import TINY, RunConfig
from ocrmem.encoder.deepencoder import tokens_for
from ocrmem.encoder.feature_store import RowFormat
from ocrmem.errors import ConfigError
from ocrmem.planning.epochs import with_steps
from ocrmem.planning.gpus import CPU, Gpu, find_gpu
from ocrmem.planning.memory_need import (
    ALLOCATOR_MOST,
    ALLOCATOR_SHARE,
    CONTEXT_BYTES,
    ModelFacts,
    memory_need,
    memory_plan,
)
from ocrmem.planning.plan_text import plan_text
from ocrmem.planning.sharding import MAX_LIVE, Sharding, sharding
from ocrmem.planning.stages import Part, parts
from ocrmem.planning.workload import Workload

DEFAULT_GPU = "h100"


class PlanResult(TypedDict):
    """Bytes, tokens, operations and seconds of a run, by subject; ``summary`` is the same as tables.

    ``cost`` has ``price_per_gpu_hour`` and ``total``, both in the currency of the price; None without a price.
    """

    gpu: dict[str, Any]
    parameters: dict[str, Any]
    memory: dict[str, Any]
    features: dict[str, Any]
    tokens: dict[str, Any]
    flops: dict[str, float]
    time: dict[str, Any]
    cost: dict[str, float] | None
    stages: list[dict[str, Any]]
    assumptions: list[dict[str, Any]]
    notes: list[str]
    summary: list[str]


def plan(
    config: RunConfig,
    *,
    gpu: str | Gpu | None = None,
    hours: float | None = None,
    mfu: float | None = None,
    answer_tokens: int | None = None,
    price_per_gpu_hour: float | None = None,
) -> PlanResult:
    """Return what a configuration needs, by arithmetic; nothing is loaded and nothing written.

    Args:
        config: the run.
        gpu: a device, or the name of one in `gpus.GPUS`, or ``cpu``; None: cpu for the tiny preset and
            ``model.device: cpu``, else an H100.
        hours: wall time that the training is to take.
        mfu: share of the peak rate that the operations reach, 0 to 1; None: measured on this GPU, else assumed.
        answer_tokens: supervised tokens a sample; None: the dataset's, or assumed.
        price_per_gpu_hour: in any currency.

    Raises:
        ConfigError: an argument is out of its range, or settings contradict each other.
        MissingInputError: the steps are given as epochs, and there is no dataset.
        ModelError: the shapes of the language model are not known here.
    """
    _check_arguments(config, hours, mfu, answer_tokens, price_per_gpu_hour)
    config = with_steps(config)
    on_cpu = config.model.base_model_name == TINY or config.model.device == CPU
    device = gpu if isinstance(gpu, Gpu) else find_gpu(gpu or (CPU if on_cpu else DEFAULT_GPU))
    facts, cut = ModelFacts.of(config), sharding(config)
    found = parts(config, facts, answer_tokens)
    times = [_time(part, facts, cut, device, mfu) for part in found]
    # What is shown of a step is that of the part that takes longest; of memory, that of the one that takes most.
    longest = max(range(len(found)), key=lambda index: times[index]["seconds"])
    most = max(found, key=lambda part: memory_need(part.config, facts, cut, part.load.largest)["total"])
    load, work = found[longest].load, found[longest].work
    seconds = sum(time["seconds"] for time in times)
    result: dict[str, Any] = {
        "gpu": asdict(device) | {"peak_flops": device.peak_flops(config.model.precision), "count": cut.processes},
        "parameters": asdict(facts.parameters),
        "memory": memory_plan(most.config, facts, most.load, cut, device, answer_tokens, most.objective),
        "features": _features(config, load),
        "tokens": _tokens(found[longest].config, load),
        "flops": asdict(work)
        | {
            "model": work.model,
            "executed": work.executed,
            "executed_per_token": work.executed / max(load.mean.positions, 1),
            "model_per_token": work.model / max(load.mean.positions, 1),
            "positions": load.mean.positions,
        },
        "time": times[longest] | {"seconds": seconds, "gpu_seconds": seconds * cut.processes},
        "cost": None
        if price_per_gpu_hour is None
        else {
            "price_per_gpu_hour": price_per_gpu_hour,
            "total": price_per_gpu_hour * seconds * cut.processes / 3600,
        },
        "stages": [_stage(part, time) for part, time in zip(found, times, strict=True)],
        "assumptions": _assumptions(config, load, cut, device, asked=gpu is not None, mfu=mfu),
        "notes": list(load.notes),
    }
    if hours is not None:
        result["time"]["wanted"] = _wanted(result, hours * 3600, cut.processes)
    finite: PlanResult = _finite(result) | {"summary": plan_text(config, result)}
    return finite


def _check_arguments(
    config: RunConfig, hours: float | None, mfu: float | None, answer_tokens: int | None, price: float | None
) -> None:
    if hours is not None and not 0 < hours < math.inf:
        raise ConfigError.of("--hours", f"is {hours:g}", "Give a wall time above 0")
    if mfu is not None and not 0 < mfu <= 1:
        raise ConfigError.of("--mfu", f"is {mfu:g}", "Give a share of the peak between 0 and 1, for example 0.35")
    if price is not None and not 0 <= price < math.inf:
        raise ConfigError.of("--price-per-gpu-hour", f"is {price:g}", "Give a price of 0 or more")
    longest = config.model.max_seq_length
    if answer_tokens is not None and not 0 < answer_tokens < longest:
        message = f"is {answer_tokens}, but a sequence has model.max_seq_length {longest} tokens"
        raise ConfigError.of("--answer-tokens", message, f"Give a number between 1 and {longest - 1}")


def _features(config: RunConfig, load: Workload) -> dict[str, Any]:
    model, size = config.model, config.render.page_size
    tokens = tokens_for(size, config.render.token_size)
    row = RowFormat("", model.features, "", model.precision, size, tokens, model.vision_embedding_size)
    return {
        "tokens_per_page": tokens,
        "page_bytes": row.row_bytes,
        "pages": load.pages,
        "bytes": None if load.pages is None else load.pages * row.row_bytes,
        "bytes_per_1000_pages": 1000 * row.row_bytes,
    }


def _tokens(config: RunConfig, load: Workload) -> dict[str, Any]:
    train, mean = config.train, load.mean
    batches = train.gradient_accumulation_steps * train.processes
    step = mean.positions * batches
    return {
        "global_batch": train.per_device_batch_size * batches,
        "row": mean.length,
        "row_used": load.used,
        "memory_per_row": mean.memory / mean.rows,
        "answer_per_row": mean.answers / mean.rows,
        "padding_share": 1 - load.used / mean.length if mean.length else 0.0,
        "step": step,
        "steps": train.max_steps,
        "total": step * train.max_steps,
        "answers": mean.answers * batches * train.max_steps,
        "is_bound": load.pages is None,
    }


def _time(part: Part, facts: ModelFacts, cut: Sharding, device: Gpu, mfu: float | None) -> dict[str, Any]:
    train, precision = part.config.train, part.config.model.precision
    peak = device.peak_flops(precision)
    mfu = mfu or device.share(precision, masked=part.load.mean.padded)[0]
    compute = (part.work.executed + part.again) / (peak * mfu)
    transfer = 0.0
    if part.runs_language_model:
        transfer = _transfer_seconds(facts, cut, device, checkpointing=train.activation_checkpointing)
    batch = max(compute, transfer)
    step = batch * train.gradient_accumulation_steps
    tokens = part.load.mean.positions * train.gradient_accumulation_steps * cut.processes
    seconds = step * train.max_steps
    return {
        "mfu": mfu,
        "compute_seconds_per_batch": compute,
        "transfer_seconds_per_batch": transfer,
        "bound_by": "computation" if compute >= transfer else "moving weights",
        "seconds_per_step": step,
        "tokens_per_second": tokens / step,
        "tokens_per_second_per_gpu": tokens / step / cut.processes,
        "model_mfu": part.work.model / (batch * peak),
        "seconds": seconds,
        "gpu_seconds": seconds * cut.processes,
    }


def _stage(part: Part, time: dict[str, Any]) -> dict[str, Any]:
    mean = part.load.mean
    return {
        "stage": part.number,
        "objective": part.objective,
        "steps": part.config.train.max_steps,
        "rows": mean.rows,
        "row": mean.length,
        "answer_per_row": mean.answers / mean.rows,
        "seconds_per_step": time["seconds_per_step"],
        "seconds": time["seconds"],
    }


def _wanted(result: dict[str, Any], wanted: float, processes: int) -> dict[str, Any]:
    time, computed = result["time"], result["time"]["compute_seconds_per_batch"]
    step, seconds = time["seconds_per_step"], time["seconds"]
    batches = step / max(computed, time["transfer_seconds_per_batch"])
    return {
        "seconds": wanted,
        "tokens_per_second": time["tokens_per_second"] * seconds / wanted,
        "mfu": time["mfu"] * computed * batches / step * seconds / wanted,
        "gpus": math.ceil(processes * seconds / wanted),
        "reached": seconds <= wanted,
    }


def _transfer_seconds(facts: ModelFacts, cut: Sharding, device: Gpu, *, checkpointing: bool) -> float:
    """Return the seconds in which a process receives the frozen weights for a batch; 0 where it holds them all.

    ZeRO-3 gathers them for forward and again for backward, and a third time where backward computes forward again.
    """
    if cut.stage < 3:
        return 0.0
    passes, weights = 3 if checkpointing else 2, facts.parameters.base_bytes
    seconds = weights * (cut.processes - 1) / cut.processes / device.link_bytes
    if cut.offload == "all":
        seconds += weights / cut.processes / device.host_bytes
    return passes * seconds


def _assumptions(
    config: RunConfig, load: Workload, cut: Sharding, device: Gpu, *, asked: bool, mfu: float | None
) -> list[dict[str, Any]]:
    def line(name: str, value: Any, unit: str, origin: str) -> dict[str, Any]:
        return {"name": name, "value": value, "unit": unit, "origin": origin}

    share, origin = device.share(config.model.precision, masked=load.mean.padded)
    lines = [
        line("GPU", device.name, "", "--gpu" if asked else "the default; --gpu NAME plans for another"),
        line("memory of a GPU", device.memory_bytes, "bytes", device.source),
        line("peak rate, dense", device.peak_flops(config.model.precision), "FLOP/s", device.source),
        line("share of the peak (MFU)", mfu or share, "", "--mfu" if mfu else origin),
        line("rows", round(load.mean.length, 1), "tokens", load.source),
        line("answer", round(load.mean.answers / load.mean.rows, 1), "tokens", load.answer_source),
        line("attention", "sdpa", "", "rows are padded: a mask, no flash kernel" if load.mean.padded else "no mask"),
        line(
            "allocator's loss", ALLOCATOR_SHARE, "of activations", f"an H100's peaks; at most {ALLOCATOR_MOST / 1e9} GB"
        ),
    ]
    if device.name != CPU:
        lines.append(line("CUDA context, NCCL, libraries", CONTEXT_BYTES, "bytes", "assumed"))
    if cut.stage == 3:
        origin = "DeepSpeed's default" if cut.live is None else "the DeepSpeed file"
        lines.append(line("weights that ZeRO-3 holds whole", int(cut.live or MAX_LIVE), "parameters", origin))
        lines.append(line("from the other GPUs", device.link_bytes, "bytes/s", f"{device.source}; one machine"))
        lines.append(line("gathering beside computing", "overlaps", "", "assumed; the longer of the two counts"))
    if cut.offload == "all":
        lines.append(line("from the host", device.host_bytes, "bytes/s", device.source))
    return lines


def _finite(value: Any) -> Any:
    """Make values fit for JSON: infinity (a CPU's link) becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value

"""Whether a run fits: bytes of one process at the peak of a step, and what to change where they are too many."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.encoder.device import DTYPES
from ocrmem.families import Shape
from ocrmem.model.configuration import MEMConfig
from ocrmem.planning.activations import NO_LORA, Lora, Projection, activations
from ocrmem.planning.gpus import CPU, GPUS, Gpu
from ocrmem.planning.shapes import Parameters, base_config, count, shape_of
from ocrmem.planning.sharding import Sharding, sharding, states
from ocrmem.planning.workload import BatchShape, Workload, workload

# Beside torch's own memory, and so not in the peaks that an H100's runs were measured by.
CONTEXT_BYTES = 1_500_000_000
# The tensors of four runs on an H100 peaked at 62.3, 68.3, 65.1 and 26.4 GB, 0.4 to 0.8 GB above what is counted here:
# rounded sizes, workspaces of libraries, pieces that do not fit (docs/plan.md, "What was checked").
ALLOCATOR_SHARE, ALLOCATOR_MOST = 0.06, 800_000_000
_WAYS = ((0, "none"), (1, "none"), (2, "none"), (3, "none"), (3, "all"))


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a run that depend neither on its sharding nor on its batches."""

    shape: Shape
    proj: Projection
    lora: Lora
    parameters: Parameters
    element: int  # bytes of an element of the frozen language model

    @classmethod
    def of(cls, config: RunConfig) -> ModelFacts:
        base, model = base_config(config), config.model
        shape = shape_of(base)
        inner = model.projector_hidden_size or shape.hidden
        proj = Projection(model.vision_embedding_size, inner, model.projector_norm)
        chosen = MEMConfig.from_run_config(config).lora
        lora = Lora(chosen["rank"], tuple(chosen["targets"])) if chosen else NO_LORA
        return cls(shape, proj, lora, count(config, base), DTYPES[model.precision].itemsize)


def memory_need(
    config: RunConfig, facts: ModelFacts, cut: Sharding, batch: BatchShape, *, on_cpu: bool = False
) -> dict[str, float]:
    """Return the bytes of one process at the peak of a step, part by part.

    Returns:
        ``frozen``, ``gathered``, ``proj``, ``gradients``, ``optimizer``: held all the time (`States`). ``activations``,
        ``peak``: of the batch. ``context``: CUDA context, libraries and communication buffers (assumed). ``fragments``:
        what the allocator takes beyond the tensors counted (measured on an H100). ``total`` of these. ``host``: moved
        to the host's memory.
    """
    checkpointing = config.train.activation_checkpointing
    held = states(facts.parameters, facts.shape, cut)
    if cut.stage == 3:  # whose head is gathered for a call
        batch = replace(batch, whole_logits=True)
    made = activations(facts.shape, facts.proj, batch, facts.element, checkpointing=checkpointing, lora=facts.lora)
    context = 0.0 if on_cpu else CONTEXT_BYTES
    fragments = min(ALLOCATOR_SHARE * (made.kept + made.at_peak), ALLOCATOR_MOST)
    on_gpu = asdict(held)
    del on_gpu["host"]
    return on_gpu | {
        "activations": made.kept,
        "peak": made.at_peak,
        "context": context,
        "fragments": fragments,
        "total": held.total + made.kept + made.at_peak + context + fragments,
        "host": held.host,
    }


def memory_plan(
    config: RunConfig,
    facts: ModelFacts,
    load: Workload,
    cut: Sharding,
    device: Gpu,
    answer_tokens: int | None,
    objective: str,
) -> dict[str, Any]:
    """Return what the run needs as configured and under every other sharding, whether that fits, and what would."""
    on_cpu = device.name == CPU
    total = memory_need(config, facts, cut, load.largest, on_cpu=on_cpu)["total"]
    cuts = [Sharding(stage, offload, cut.processes, cut.live) for stage, offload in _WAYS]
    if all(other.name != cut.name for other in cuts):
        cuts.append(cut)
    available = device.memory_bytes // (cut.processes if on_cpu else 1)  # processes share a machine's memory
    fits = total <= available
    return {
        "chosen": cut.name,
        "activation_checkpointing": config.train.activation_checkpointing,
        "available_bytes": available,
        "total_bytes": total,
        "fits": fits,
        "fits_on": [other.name for other in GPUS.values() if total <= other.memory_bytes],
        "ways": {other.name: memory_need(config, facts, other, load.largest, on_cpu=on_cpu) for other in cuts},
        "remedies": [] if fits or on_cpu else _remedies(config, facts, device, answer_tokens, objective),
    }


def _remedies(
    config: RunConfig, facts: ModelFacts, device: Gpu, answer_tokens: int | None, objective: str
) -> list[dict[str, Any]]:
    """Return changes of the settings, the smallest first, under which the run fits at the same global batch."""
    train, rows = config.train, config.train.per_device_batch_size

    def fewer_rows(factor: int) -> dict[str, Any]:
        steps = train.gradient_accumulation_steps * factor
        return {"per_device_batch_size": rows // factor, "gradient_accumulation_steps": steps}

    changes: list[dict[str, Any]] = [] if rows % 2 else [fewer_rows(2)]
    changes.append({"activation_checkpointing": True})
    if config.model.precision != "float16":  # DeepSpeed refuses it here
        sharded = {"activation_checkpointing": True, "deepspeed": "zero3"}
        if train.processes > 1:  # one process has nobody to share with
            changes += [sharded, sharded | fewer_rows(rows)]
        changes.append(sharded | {"offload": "all"} | fewer_rows(rows))
    found = []
    for change in changes:
        settings = {name: value for name, value in change.items() if getattr(train, name) != value}
        if not settings:
            continue
        other = config.model_copy(update={"train": train.model_copy(update=settings)})
        total = memory_need(other, facts, sharding(other), workload(other, answer_tokens, objective).largest)["total"]
        if total <= device.memory_bytes:
            found.append({"settings": {f"train.{name}": v for name, v in settings.items()}, "total_bytes": total})
    return found[:2]

"""Sharding: how ZeRO cuts a run, and the bytes that one process then holds all the time.

What is trained, proj and on request LoRA, is float32 with AdamW: weight, gradient and two moments, 4 bytes each
(Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1, without the half-precision copy, as DeepSpeed's casting modes
stay off here). ZeRO divides by the number of processes: stage 1 the optimizer's state, 2 also gradients, 3 also
weights, the frozen ones included. Only the last matters for a projector of 21 million parameters beside a language
model of 8 billion.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocrmem.config import RunConfig
from ocrmem.config.deepspeed import deepspeed_config
from ocrmem.families import Shape
from ocrmem.planning.shapes import Parameters

_FLOAT = 4
# DeepSpeed's default of stage3_max_live_parameters, and what transformers makes of "auto" for the prefetch bucket.
MAX_LIVE = 10**9
_PREFETCH = 0.9


@dataclass(frozen=True)
class Sharding:
    """How a run is cut over its processes."""

    stage: int = 0  # of ZeRO; 0 is plain data parallelism
    offload: str = "none"  # what lies in the host's memory: "none", "optimizer" or "all"
    processes: int = 1  # data-parallel ones, a GPU each
    live: float | None = None  # parameters that ZeRO-3 holds whole at once, at most; None: DeepSpeed's default

    @property
    def name(self) -> str:
        """Its name on the command line."""
        stage = f"zero{self.stage}" if self.stage else "none"
        return stage if self.offload == "none" else f"{stage}+{self.offload}"


@dataclass(frozen=True)
class States:
    """Bytes that one process holds all the time."""

    frozen: float  # its share of the frozen language model
    gathered: float  # ZeRO-3's buffers, into which it gathers weights of the other processes; an upper bound
    proj: float  # its share of proj's weights
    gradients: float  # its share of proj's, with the buckets that they travel in
    optimizer: float  # AdamW's moments, and DeepSpeed's own copy of the weights
    host: float  # what offloading moves to the host's memory

    @property
    def total(self) -> float:
        """On the GPU."""
        return self.frozen + self.gathered + self.proj + self.gradients + self.optimizer


def sharding(config: RunConfig) -> Sharding:
    """Read ``train.deepspeed``, its file and ``train.offload``.

    Raises:
        ConfigError: a DeepSpeed file that cannot be read or contradicts the settings.
    """
    values = deepspeed_config(config, on_cpu=False)
    if values is None:
        return Sharding(processes=config.train.processes)
    zero, offload = values["zero_optimization"], "none"
    for key, name in (("offload_optimizer", "optimizer"), ("offload_param", "all")):
        if (zero.get(key) or {}).get("device", "none") != "none":
            offload = name
    return Sharding(zero["stage"], offload, config.train.processes, zero.get("stage3_max_live_parameters"))


def states(parameters: Parameters, shape: Shape, cut: Sharding) -> States:
    """Return the bytes of one process under a sharding."""
    processes, trained = cut.processes, parameters.trained_bytes
    bucket = trained if processes > 1 else 0  # DistributedDataParallel's copies of the gradients
    if cut.stage:
        bucket = 2 * shape.hidden**2 * _FLOAT  # reduce_bucket_size, once filled and once on its way
    gradients = trained / (processes if cut.stage >= 2 else 1)
    moments = 2 * trained / (processes if cut.stage >= 1 else 1)
    copy = trained / processes if cut.stage >= 1 else 0.0
    frozen = parameters.base_bytes / (processes if cut.stage == 3 else 1)
    weights = trained / (processes if cut.stage == 3 else 1)
    gathered, optimizer, host = 0.0, moments + copy, 0.0
    if cut.stage == 3 and (processes > 1 or cut.offload == "all"):
        live = max(parameters.largest, cut.live or MAX_LIVE) + _PREFETCH * shape.hidden**2
        gathered = min(live, parameters.base) * parameters.base_bytes / parameters.base
    if cut.offload != "none":
        host += optimizer + gradients
        optimizer = 0.0
    if cut.offload == "all":
        host += frozen + weights
        frozen = weights = 0.0
    return States(frozen, gathered, weights, gradients + bucket, optimizer, host)

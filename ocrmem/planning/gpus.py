"""GPUs: memory, peak rates without sparsity, and how fast weights come from the neighbours.

The figures are the vendor's, from the data sheets named beside them. Memory is the advertised size in units of
10^9 bytes, a little less than what a process finds. Data sheets print tensor rates with 2:4 sparsity from Hopper
and Ada on; half of that is the dense rate given here. For GeForce it is the rate that accumulates in float32.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ocrmem.errors import ConfigError

CPU = "cpu"


@dataclass(frozen=True)
class Reached:
    """The share of the data sheet's peak that a training's operations reach in 16 bits, executed ones counted (HFU)."""

    plain: float
    masked: float  # where rows are padded: attention has a mask, and no flash kernel
    source: str


_ASSUMED = Reached(0.35, 0.35, "assumed; measured on an H100 alone")
# 11,743 and 9,511 tokens/s of 2 rows x 4096; 8 rows x 1024 reached 0.38, 4 x 4096 with activation checkpointing 0.44.
_MEASURED = {
    "h100": Reached(0.43, 0.35, "measured: Qwen3-8B's shape, 2 rows of 4096 tokens, torch 2.11"),
}


@dataclass(frozen=True)
class Gpu:
    """A device to plan for."""

    name: str  # on the command line
    label: str
    memory_bytes: int
    half_flops: float  # peak operations a second in bfloat16 and float16, dense, on tensor cores
    single_flops: float  # peak operations a second in float32
    link_bytes: float  # bytes a second from the other GPUs of its machine (NVLink, else PCIe)
    host_bytes: float  # bytes a second from the machine's memory
    source: str  # where the figures are from
    reached: Reached = _ASSUMED

    def peak_flops(self, precision: str) -> float:
        """Peak operations a second in ``precision`` (TF32 is not used: torch leaves it off)."""
        return self.single_flops if precision == "float32" else self.half_flops

    def share(self, precision: str, *, masked: bool) -> tuple[float, str]:
        """Return the share of that peak which a training reaches, and where the figure is from."""
        reached = _ASSUMED if precision == "float32" else self.reached
        return (reached.masked if masked else reached.plain), reached.source


# Memory GB, bfloat16 and float32 TFLOP/s, GB/s one way from the other GPUs and from the host. A data sheet's
# NVLink and PCIe figures count both directions.
GPUS = {
    name: Gpu(
        name,
        label,
        gigabytes * 10**9,
        half * 1e12,
        single * 1e12,
        link * 1e9,
        host * 1e9,
        source,
        _MEASURED.get(name, _ASSUMED),
    )
    for name, label, gigabytes, half, single, link, host, source in (
        ("b200", "NVIDIA B200 SXM 180GB", 180, 2250.0, 75.0, 900, 64, "NVIDIA Blackwell datasheet (HGX B200)"),
        ("h200", "NVIDIA H200 SXM 141GB", 141, 989.4, 66.9, 450, 64, "NVIDIA H200 datasheet"),
        ("h100", "NVIDIA H100 SXM 80GB", 80, 989.4, 66.9, 450, 64, "NVIDIA H100 datasheet"),
        ("a100-80", "NVIDIA A100 SXM 80GB", 80, 312.0, 19.5, 300, 32, "NVIDIA A100 datasheet"),
        ("a100-40", "NVIDIA A100 SXM 40GB", 40, 312.0, 19.5, 300, 32, "NVIDIA A100 datasheet"),
        ("l40s", "NVIDIA L40S 48GB", 48, 362.0, 91.6, 32, 32, "NVIDIA L40S datasheet"),
        ("l4", "NVIDIA L4 24GB", 24, 121.0, 30.3, 32, 32, "NVIDIA L4 datasheet"),
        ("rtx4090", "NVIDIA GeForce RTX 4090 24GB", 24, 165.2, 82.6, 32, 32, "NVIDIA Ada architecture whitepaper"),
        ("rtx3090", "NVIDIA GeForce RTX 3090 24GB", 24, 71.0, 35.6, 32, 32, "NVIDIA GA102 architecture whitepaper"),
    )
}


def gpu_of_device(label: str) -> Gpu | None:
    """Return the GPU that a driver calls ``label``, as in "NVIDIA A100-SXM4-80GB"; None where the table has none."""
    words = re.split(r"[\s-]+", label.lower().replace("rtx ", "rtx"))
    return next((gpu for name, gpu in GPUS.items() if name.partition("-")[0] in words), None)


def find_gpu(name: str) -> Gpu:
    """Return the device of that name; ``cpu`` is this machine, whose peak is measured in half a second.

    Raises:
        ConfigError: the name is not in the table.
    """
    if name == CPU:
        import torch

        threads = torch.get_num_threads()
        peak = measured_peak(threads)
        source = f"measured here: float32 matrix products on {threads} thread" + ("s" if threads > 1 else "")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Gpu(CPU, "this machine's CPU", memory, peak, peak, float("inf"), float("inf"), source)
    found = GPUS.get(name.lower())
    if found is None:
        raise ConfigError.of("--gpu", f"{name!r} is not known", f"Use one of {', '.join([*GPUS, CPU])}")
    return found


def measured_peak(threads: int, seconds: float = 0.4) -> float:
    """Measure the operations a second of torch's float32 matrix product on this CPU: the fastest of many short ones."""
    import torch
    from torch.utils.benchmark import Timer

    size = 512  # a few milliseconds, short enough to run uninterrupted now and then
    matrices = {"left": torch.randn(size, size), "right": torch.randn(size, size)}
    timer = Timer("left @ right", globals=matrices, num_threads=threads)
    return 2 * size**3 / min(timer.blocked_autorange(min_run_time=seconds).times)

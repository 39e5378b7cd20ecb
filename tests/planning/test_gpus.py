"""A GPU is known by the name that its driver gives it."""

from __future__ import annotations

import pytest

from ocrmem.planning.gpus import gpu_of_device


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla V100-SXM2-32GB", None),
    ],
)
def test_the_driver_s_name_leads_to_the_table(label: str, name: str | None) -> None:
    gpu = gpu_of_device(label)
    assert (gpu and gpu.name) == name

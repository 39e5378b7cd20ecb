"""Stages on two ranks under DDP, ZeRO-2 and ZeRO-3: in every stage the losses and the adapter of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import stages_script
from support.models import small_workspace
from support.ranks import run_ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stages")
    small_workspace(root)
    return root


@pytest.fixture(scope="module")
def one(root: Path) -> dict[str, Any]:
    return stages_script.trained(root, "one", None)


@pytest.fixture(scope="module")
def ranks(root: Path) -> list[dict[str, Any]]:
    return run_ranks("distributed/stages_script.py", root)


@pytest.mark.parametrize("engine", stages_script.ENGINES)
def test_two_ranks_train_every_stage_as_one_process_does(
    engine: str, one: dict[str, Any], ranks: list[dict[str, Any]]
) -> None:
    found = ranks[0][engine]
    assert [row["stage"] for row in found["rows"]] == ["1", "1", "2", "2", "3", "3", "3"]
    for mine, other in zip(found["rows"], one["rows"], strict=True):
        assert float(mine["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4), mine["step"]
        assert float(mine["proj_grad_norm"]) == pytest.approx(float(other["proj_grad_norm"]), rel=1e-3), mine["step"]
        assert float(mine["learning_rate"]) == pytest.approx(float(other["learning_rate"]), rel=1e-9)
        for figure in ("eval_loss", "eval_recall"):
            assert float(mine[figure]) == pytest.approx(float(other[figure]), rel=1e-4, nan_ok=True), mine["step"]
    assert [row["step"] for row in one["rows"] if row["eval_loss"] != "nan"] == ["3", "6", "7"]
    for name, values in found["trained"].items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(one["trained"][name]), rtol=0, atol=1e-4)
    assert "proj.output_norm.weight" in found["trained"]
    assert "lora.model.layers.0.self_attn.o_proj.lora_B.weight" in found["trained"]

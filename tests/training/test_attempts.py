"""Training starts again from another seed while the loss stays above the target, and keeps the best attempt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.models import small_workspace

from ocrmem.files import sha256_tree
from ocrmem.training.train import train


@pytest.mark.slow
def test_the_attempt_with_the_lowest_loss_is_kept_when_none_reaches_the_target(tmp_path: Path) -> None:
    config = small_workspace(
        tmp_path, train={"target_loss": 1e-9, "max_attempts": 2, "max_steps": 4, "logging_steps": 1}
    )
    result = train(config)
    assert [attempt["seed"] for attempt in result["attempts"]] == [0, 1000]
    assert result["loss"]["last"] == min(attempt["loss"] for attempt in result["attempts"])
    written = json.loads((tmp_path / "reports" / "train.json").read_text(encoding="utf-8"))
    assert written["attempts"] == result["attempts"]
    assert written["adapter_sha256"] == sha256_tree(tmp_path / "adapter")


@pytest.mark.slow
def test_a_loss_under_the_target_ends_the_attempts(tmp_path: Path) -> None:
    config = small_workspace(
        tmp_path, train={"target_loss": 1e9, "max_attempts": 3, "max_steps": 2, "logging_steps": 1}
    )
    assert len(train(config)["attempts"]) == 1

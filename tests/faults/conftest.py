"""A workspace after `ocrmem encode` that the fault tests share, and settings for runs on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.models import small_settings, small_workspace


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    small_workspace(root)
    return root


@pytest.fixture
def values(inputs: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a run that reads the shared inputs and writes under a folder of its own."""

    def make(root: Path, **train: Any) -> dict[str, Any]:
        made = small_settings(root, train=train)
        made["data"]["path"] = str(inputs / "data")
        made["paths"] |= {name: str(inputs / name) for name in ("models", "dataset", "features")}
        return made

    return make

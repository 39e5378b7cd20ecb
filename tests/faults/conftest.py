"""Workspaces that the fault tests share, settings for runs on them, and a process that runs verbs without imports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.finished import finish
from support.models import reading, small_settings, small_workspace
from support.verbs import Verbs, running_verbs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    small_workspace(root)
    return root


@pytest.fixture
def values(inputs: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a run that reads the shared inputs and writes under a folder of its own."""

    def make(root: Path, **train: Any) -> dict[str, Any]:
        return reading(inputs, small_settings(root, train=train))

    return make


@pytest.fixture(scope="session")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verbs]:
    with running_verbs(tmp_path_factory.mktemp("printed")) as running:
        yield running


@pytest.fixture(scope="session")
def finished(verbs: Verbs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which all verbs have run but `check`, whose library takes long to import."""
    root = tmp_path_factory.mktemp("finished")
    finish(root, verbs, ("validate", "render", "encode", "smoke", "train", "evaluate", "register", "version"))
    return root

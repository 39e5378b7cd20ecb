"""Settings files written for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError


@pytest.fixture
def faults(tmp_path: Path) -> Callable[..., str]:
    """Loads YAML text and gives all of its faults as one text; "" when it loads."""

    def load(text: str | bytes, *overrides: str) -> str:
        path = tmp_path / "params.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        try:
            RunConfig.load(path, overrides)
        except ConfigError as error:
            reported = error
        else:
            return ""
        assert reported.exit_code == 2
        assert all(problem.place and problem.remedy for problem in reported.problems)
        return str(reported).replace(f"{tmp_path}/", "")

    return load

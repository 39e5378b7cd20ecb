"""Reading a settings file: what is not readable, or not said clearly, is refused with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError

Load = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "params.yaml:1: is not readable YAML"),
        ("model:\n\tx: 1", "params.yaml:2: is not readable YAML"),
        ("a: 1\nb: ]\n", "params.yaml:2: is not readable YAML"),
        (b"model:\n  base_model_name: caf\xe9\n", "params.yaml:2: is not UTF-8"),
        ("- 1\n- 2", "params.yaml: holds a list, not sections"),
        ("just text", "params.yaml: holds a str, not sections"),
        ("a: &x [1]\nb: *x", "params.yaml:2: is not readable YAML (aliases"),
        ("a: &x [*x]", "aliases"),
        ("!!python/object/apply:os.system ['true']", "is not readable YAML"),
        (
            "train:\n  max_steps: 1\n  max_steps: 2\n",
            "params.yaml:3: 'max_steps' is given again (first in line 2)",
        ),
        ("model: {}\ntrain: {}\nmodel: {}\n", "params.yaml:3: 'model' is given again"),
        ("x: " + "[" * 5000, "is not readable YAML"),
        ("? [1, 2]\n: 3", "is not readable YAML"),
        ("#" * (1 << 21), "larger than 1 MiB"),
    ],
    ids=range(14),
)
def test_a_file_that_cannot_be_read_is_reported(faults: Load, text: str | bytes, said: str) -> None:
    assert said in faults(text)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\x00.yaml"])
def test_a_path_that_is_not_a_file_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not there|cannot be read"):
        RunConfig.load(tmp_path / name)

"""Reading a settings file: what is not readable, or not said clearly, is refused with its line."""

from __future__ import annotations

import tracemalloc
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
        ("a: 1\nb: !!timestamp noon\n", "params.yaml:2: is not readable YAML (no timestamp)"),
        ("a: !!bool 3", "is not readable YAML (no bool)"),
        ("a: 2026-13-99", "is not readable YAML (no timestamp)"),
        (f"a: 0x{'f' * 5000}", "is not readable YAML (a number of 5,002 digits)"),
        (f"a: {':'.join('1' * 3000)}", "is not readable YAML (a number of 5,999 digits)"),
        (f"? 0x{'f' * 5000}\n: 1", "is not readable YAML (a number of"),
        ("train: {2026-01-01: 1}", "train.2026-01-01: is an unknown field"),
    ],
    ids=range(21),
)
def test_a_file_that_cannot_be_read_is_reported(faults: Load, text: str | bytes, said: str) -> None:
    assert said in faults(text)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\x00.yaml"])
def test_a_path_that_is_not_a_file_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not there|cannot be read"):
        RunConfig.load(tmp_path / name)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.path=[&a [x, x], *a, *a]", "--set data.path: has a value that is not YAML (aliases"),
        ("train={max_steps: 3, max_steps: 4}", "--set train: 'max_steps' is given again"),
        (f"train.max_steps=0x{'f' * 5000}", "--set train.max_steps: has a value that is not YAML (a number of"),
        ("train.max_steps=!!timestamp noon", "--set train.max_steps: has a value that is not YAML (no timestamp)"),
        (f"train.max_steps={'[' * 5000}", "--set train.max_steps: has a value that is not YAML (nested too deeply)"),
        ("train.max_steps=1\n---\n2", "has a value that is not YAML (but found another document)"),
    ],
    ids=range(6),
)
def test_a_value_on_the_command_line_is_read_as_in_the_file(faults: Load, override: str, said: str) -> None:
    assert said in faults("", override)


def test_aliases_that_multiply_cost_nothing() -> None:
    """Nine levels of eight references each are 134 million values when they are followed."""
    levels = [f"&a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)]
    tracemalloc.start()
    with pytest.raises(ConfigError, match="aliases"):
        RunConfig.load("params.yaml", [f"data.path=[&a0 [{'x, ' * 8}], {', '.join(levels)}]"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20

"""Code outside the package, where neither mypy nor the package's tests look, and the docs import what exists."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = [
    path for folder in ("benchmarks", "components", "pipelines", "scripts") for path in (ROOT / folder).rglob("*.py")
]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def imported(text: str) -> Iterator[tuple[str, str | None]]:
    """The modules of ocrmem that the code imports, each with the name that it takes from it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ocrmem":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.partition(".")[0] == "ocrmem")


def check(text: str) -> list[str]:
    missing = []
    for module, name in imported(text):
        try:
            found = importlib.import_module(module)
            if name is not None and not hasattr(found, name):
                importlib.import_module(f"{module}.{name}")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("ocrmem"):
                raise
            missing.append(f"{module}: {name}" if name else module)
    return missing


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sorted(CODE), ids=named)
def test_code_outside_the_package_imports_what_exists(path: Path) -> None:
    assert check(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted(PAGES), ids=named)
def test_the_examples_of_the_docs_import_what_exists(path: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
        assert check(block) == []

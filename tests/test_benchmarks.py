"""The scripts of benchmarks/ start, and the documents name every one. What they measure is for `make bench`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))

# By torch (jinja2, numpy, typing_extensions), transformers and pydantic, themselves included.
BROUGHT = {
    "huggingface_hub", "jinja2", "numpy", "pydantic", "pydantic_core", "rich", "safetensors", "tokenizers", "torch",
    "transformers", "typing_extensions", "yaml",
}  # fmt: skip

# All in one process: each of them imports torch. A script's own folder comes first on the path, as when it is run.
ASK_EACH_FOR_HELP = """
import contextlib, io, runpy, sys
sys.path.insert(0, sys.argv[1])
for path in sys.argv[2:]:
    sys.argv = [path, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as told:
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as left:
            code = left.code
    print(path, code, "usage: " in told.getvalue())
"""


def test_every_benchmark_can_be_imported_and_asked_for_help() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK_EACH_FOR_HELP, str(ROOT / "benchmarks"), *map(str, SCRIPTS)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [answer for answer in answers if answer[1:] != ["0", "True"]] == []
    assert len(answers) == len(SCRIPTS) > 10


def test_the_gpus_benchmark_imports_nothing_but_what_it_says_it_needs() -> None:
    """It is for a machine without a registry, to which torch, transformers and pydantic are carried."""
    waiting, seen, others = [ROOT / "benchmarks" / "gpu.py"], set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                top, *_ = parts = name.split(".")
                if top in ("ocrmem", "common"):
                    place = (ROOT / "benchmarks" if top == "common" else ROOT).joinpath(*parts)
                    waiting += [place.with_suffix(".py"), place / "__init__.py", place.parent / "__init__.py"]
                elif top not in sys.stdlib_module_names:
                    others.add(top)
    assert len(seen) > 50
    assert others - BROUGHT == set()


def test_every_benchmark_is_named_in_a_document() -> None:
    documents = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert [path.name for path in SCRIPTS if f"benchmarks/{path.name}" not in documents] == []


def test_the_driver_tells_a_missed_target_from_what_cannot_be_measured_and_ends_with_1(tmp_path: Path) -> None:
    """`run_all.py` on four scripts that do nothing."""
    (tmp_path / "run_all.py").write_bytes((ROOT / "benchmarks" / "run_all.py").read_bytes())
    (tmp_path / "common").symlink_to(ROOT / "benchmarks" / "common")
    expected = {"a": "shown", "b": "target missed", "c": "not to be measured here", "d": "broke (exit code 3)"}
    for code, name in enumerate(expected):
        text = f"print('table of {name}'); print('{{\"x\": 1}}'); raise SystemExit({code})"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")

    def driver(*options: str) -> tuple[int, str]:
        command = [sys.executable, str(tmp_path / "run_all.py"), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    code, told = driver("--json", str(tmp_path / "bench.json"))
    assert code == 1
    table = [line.split(maxsplit=2) for line in told.splitlines()]
    assert {words[0]: words[2] for words in table if words and words[0] in expected} == expected
    assert "table of a" in told
    assert '"x"' not in told
    results = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["benchmarks"]
    assert [result["result"] for result in results.values()] == [{"x": 1}] * 4
    assert driver("--only", "a", "c")[0] == 0

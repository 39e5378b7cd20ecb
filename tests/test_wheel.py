"""The wheel: every file of the package is in it, and what it installs answers outside of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from support.sessions import write_adapter

import ocrmem

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")


def ran(command: list[str | Path], cwd: Path) -> str:
    """Run without what leads to the checkout; return what is printed."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=outside, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "ocrmem", source / "ocrmem", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    ran([sys.executable, "-c", build], source)
    [made] = (source / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a new environment with the wheel; other libraries are this one's, whose own ocrmem it does not see."""
    root = tmp_path_factory.mktemp("installed")
    ran([sys.executable, "-m", "venv", "--without-pip", root], root)
    ran([UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", root / "bin" / "python", wheel], root)
    [packages] = root.glob("lib/python*/site-packages")
    # A .pth file's folders are searched, but .pth files in them, as of an editable ocrmem, are not read.
    (packages / "others.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", encoding="utf-8")
    return root / "bin"


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ocrmem").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == files
    kinds = {Path(name).suffix for name in held}
    assert {".py", ".safetensors", ".npz", ".jinja", ".json", ".txt", ".typed"} <= kinds
    assert re.search(r"^Version: (.+)$", metadata, re.M)[1] == ocrmem.__version__  # type: ignore[index]


@pytest.mark.slow
def test_what_is_installed_answers_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    config = write_adapter(tmp_path)
    (tmp_path / "notes.txt").write_text("ana tea was the\n" * 12, encoding="utf-8")
    command = [installed / "ocrmem", "ask", "notes.txt", "--question", "ask ana", "--json"]
    answer = json.loads(ran([*command, "--adapter", config.paths.adapter], tmp_path))
    assert answer["memory_tokens"] > 0
    assert answer["pages"] > 0
    code = (
        "import ocrmem; from ocrmem.boxed import boxed; from ocrmem.package import verify_package; "
        "verify_package(boxed('english')); print(ocrmem.__file__)"
    )
    assert Path(ran([installed / "python", "-c", code], tmp_path).strip()).is_relative_to(installed.parent)


def test_the_version_is_written_in_one_place_and_said_by_others() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ocrmem.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == ocrmem.__version__
    newest = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[0]
    assert newest == ocrmem.__version__

"""Every verb on a disk that takes nothing: one line says path, cause and remedy, and what was there stays."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest
import torch
from support.verbs import Verbs

pytestmark = pytest.mark.slow
pytest.importorskip("mlflow")
pytest.importorskip("dvc")
pytest.importorskip("great_expectations")

VERBS = {
    "synth": ["--output", "out", "--count", "2", "--eval-count", "1"],
    "validate": [],
    "base": ["--set", "paths.models=other"],
    "render": [],
    "render --preview": ["--preview", "1"],
    "check": [],
    "version": [],
    "encode": [],
    "smoke": [],
    "train": [],
    "evaluate": [],
    "register": [],
    "import-adapter": ["ancestor", "--output", "imported"],
}
CAUSES = {
    "read_only": "ead-only file system",
    "full": "No space left on device",
    "filling": "No space left on device|MiB are free",
    "unwritable": "ermission denied",
}


def write_ancestor(folder: Path) -> None:
    """What `import-adapter` reads."""
    folder.mkdir()
    shapes = {"0.weight": (8, 64), "0.bias": (8,), "2.weight": (8, 8), "2.bias": (8,)}
    torch.save({name: torch.ones(shape) for name, shape in shapes.items()}, folder / "projection_layer.pt")
    (folder / "config.json").write_text("{}", encoding="utf-8")


def contents(root: Path) -> dict[str, str]:
    """Of all files but those that a verb may leave: locks, and shards to resume from."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


@pytest.mark.parametrize("how", CAUSES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_disk_that_takes_nothing(verb: str, how: str, verbs: Verbs, finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    write_ancestor(root / "ancestor")
    # Rows of another precision are new rows: there is something to encode.
    changed = ["--set", "model.precision=bfloat16"] if verb == "encode" else []
    before = contents(root)
    name = verb.split()[0]
    done = verbs(root, name, *VERBS[verb], *changed, "--quiet", before=(f"support.disks:{how}", {}))
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    if how == "filling" and done.code == 0:  # what it wrote fitted into the rest
        return
    assert done.code in ({1, 2} if how == "filling" else {2}), done
    assert done.stdout == ""
    problems = lines[:-1] if len(lines) > 1 else lines
    assert all(re.search(CAUSES[how], problem) for problem in problems), done.stderr
    assert all(problem.endswith(".") and ": " in problem for problem in problems), done.stderr
    assert contents(root) == before

"""A verb that runs twice on one workspace: one of the two works, and the other says who does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.finished import before
from support.held import held_elsewhere
from support.verbs import Command, Verbs

pytestmark = pytest.mark.slow
pytest.importorskip("mlflow")
pytest.importorskip("dvc")

OUTPUT_OF = {
    "base": "models",
    "render": "dataset",
    "check": "checks",
    "encode": "features",
    "smoke": "smoke",
    "train": "adapter",
    "evaluate": "evaluation.json",
    "version": "version.json",
}


@pytest.mark.parametrize("verb", OUTPUT_OF)
def test_a_verb_whose_output_another_process_writes_says_who_and_changes_nothing(
    verb: str, verbs: Verbs, finished: Path
) -> None:
    output = finished / OUTPUT_OF[verb]
    with held_elsewhere(output, verb) as holder:
        done = verbs(finished, verb, "--quiet")
    (finished / f".{output.name}.lock").unlink()  # the holder was killed
    assert done.code == 2, done
    assert f"is being written by another `ocrmem {verb}` (process {holder.pid} on " in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", ["render", "encode", "register"])
def test_two_at_the_same_moment_give_what_one_gives(verb: str, verbs: Verbs, finished: Path, tmp_path: Path) -> None:
    root = before(verb, finished, tmp_path / "both")
    done = verbs.together(*[Command(str(root), (verb, "--quiet"))] * 2)
    assert not any("Traceback" in one.stderr for one in done), done
    codes = sorted(one.code for one in done)
    assert codes in ([0, 0], [0, 2]), done
    assert all("is being written by another" in one.stderr for one in done if one.code)
    alone = before(verb, finished, tmp_path / "alone")
    assert verbs(alone, verb, "--quiet").code == 0
    names = [{path.relative_to(tree).as_posix() for path in tree.rglob("*")} for tree in (root, alone)]
    if verb == "register":  # artifacts lie under random names
        counts = [len(list((tree / "registry").rglob("provenance.json"))) for tree in (root, alone)]
        assert counts[0] == counts[1]
    else:
        assert names[0] == names[1]
    shutil.rmtree(root)

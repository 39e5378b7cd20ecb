"""What cannot be written is said before the work."""

from __future__ import annotations

import importlib
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from ocrmem.cli import main
from ocrmem.errors import ConfigError
from ocrmem.places import require_places, room
from ocrmem.steps import STEPS
from ocrmem.steps.step import Step

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
# Verbs whose outputs have a place in the settings, and a setting that moves one of them.
MOVED = {
    "validate": "paths.reports",
    "base": "paths.models",
    "render": "paths.dataset",
    "check": "paths.checks",
    "version": "paths.reports",
    "encode": "paths.features",
    "smoke": "paths.smoke",
    "train": "paths.adapter",
    "evaluate": "paths.reports",
    "register": "paths.reports",
}


def test_every_place_that_cannot_be_written_is_named_and_nothing_stays_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "not yet" / "there")
    good = [tmp_path / "new" / "below" / "it.json", tmp_path / "link", tmp_path / "disk"]
    bad = [tmp_path / "file" / "a", tmp_path / "file" / "b" / "c.json"]
    before = sorted(tmp_path.rglob("*"))
    require_places(good)
    with pytest.raises(ConfigError) as caught:
        require_places([*good, *bad])
    assert [problem.place for problem in caught.value.problems] == [str(path) for path in bad]
    assert all("Not a directory" in problem.message for problem in caught.value.problems)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", MOVED)
def test_a_verb_that_cannot_write_its_output_does_no_work(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PARAMS.parent / "samples" / "conversations", tmp_path / "data")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    if verb not in ("train", "validate"):  # these two ask by themselves: their outputs depend on more than settings
        monkeypatch.setattr(Step, "load", lambda self: pytest.fail("began"))
    module = importlib.import_module("ocrmem.validation.validate")
    monkeypatch.setattr(module, "ConversationReader", lambda *_, **__: pytest.fail("began"))
    assert main([verb, "--config", str(PARAMS), "--set", f"{MOVED[verb]}=file/x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("file/x") and "cannot be written" in line for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "file"}


def test_every_verb_with_outputs_is_in_the_table() -> None:
    assert {name for name, step in STEPS.items() if step.writes and step.takes_config} == set(MOVED)


def test_what_lies_on_one_disk_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 0, 3 * 2**20))
    needs = {"adapter": (tmp_path / "adapter", 2**20), "checkpoints": (tmp_path / "not" / "there", 2**21)}
    said, problems = room(needs, "Free space")
    assert (said, problems) == (["adapter and checkpoints need about 3.0 MiB of 3.0 MiB"], [])
    _, [problem] = room(needs | {"plots": (tmp_path, 1)}, "Free space")
    assert str(problem) == "adapter: adapter and checkpoints and plots need about 3.0 MiB, and 3.0 MiB are free. " \
        "Free space."  # fmt: skip

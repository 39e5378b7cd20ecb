"""Every command of README.md and of the pages that a newcomer follows, in order, from the pages themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.checkout import ROOT, small_checkout
from support.page_commands import commands, run_page

DOCS = ROOT / "docs"
# What needs the network or takes long; each of them is run by other tests or by CI.
LEFT_OUT = frozenset(
    {
        'git clone "$URL"',  # and the `cd` behind it, which goes with it
        "cd ocrmem",
        "make install",
        "make demo",
        "make test",
        ". .venv/bin/activate",
        "uv tool install",
        "ocrmem pipeline run smoke_test",  # minutes; CI runs it
    }
)
# Fewer conversations and steps, and an adapter that was trained for other settings than the small ones.
SMALLER = {
    "--count 2000 --eval-count 100": "--count 6 --eval-count 3",
    "--set train.max_steps=400": "--set train.max_steps=2",
}
# An adapter of two steps does not meet the gate: `register` makes the version and says so.
MAY_SAY_NO = frozenset({"ocrmem register"})
PAGES = [
    ROOT / "README.md",
    DOCS / "getting-started.md",
    DOCS / "tutorial-own-data.md",
    DOCS / "tutorial-cluster.md",
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_checkout(tmp_path, monkeypatch)
    if page.name.startswith("tutorial"):  # they go on where getting started ended
        Path("notes.txt").write_text("Emma has a dog called Mochi.\n", encoding="utf-8")
    ran = run_page(page, monkeypatch, capsys, left_out=LEFT_OUT, smaller=SMALLER, may_say_no=MAY_SAY_NO)
    assert sum("ocrmem " in command for command, _ in ran) >= 2
    if page.name == "README.md":
        assert json.loads((tmp_path / "mine" / "evaluation.json").read_text(encoding="utf-8"))["memory"]["samples"] > 0
    if page.name == "getting-started.md":
        assert list((tmp_path / "drawn").glob("*.png"))


def test_what_is_left_out_or_made_smaller_stands_on_a_page() -> None:
    every = [command for page in PAGES for command in commands(page)]
    assert [begin for begin in LEFT_OUT if not any(command.startswith(begin) for command in every)] == []
    assert [long for long in SMALLER if not any(long in command for command in every)] == []

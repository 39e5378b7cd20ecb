"""When the alias moves: only to what is better, unless the settings say otherwise, and never for an experiment."""

from __future__ import annotations

import pytest

from ocrmem.config.schema import GateSection, RegisterSection
from ocrmem.evaluation.gate import gate_lines
from ocrmem.registry.backend import LORA_TAG, Version
from ocrmem.registry.promotion import figure_tag, figure_text, promotion


def figures(recall: float, gain: float) -> dict[str, dict[str, float]]:
    silent = {"loss": 2.0, "recall": 0.0}
    return {"memory": {"loss": 2.0 - gain, "recall": recall}, "shuffled": silent, "no_memory": silent}


def version(number: int, recall: float, gain: float) -> Version:
    lines = gate_lines(figures(recall, gain), GateSection())
    return Version("adapter", number, {figure_tag(line): figure_text(line) for line in lines})


HELD = version(1, recall=0.9, gain=1.0)


@pytest.mark.parametrize(
    ("section", "new", "holder", "moves", "reason"),
    [
        ({}, (2, 0.5, 0.5), None, True, ""),
        ({}, (2, 0.91, 0.5), HELD, True, "memory.recall = 0.91, and 0.9 of version 1"),
        ({}, (2, 0.9, 1.5), HELD, False, "memory.recall = 0.9, and 0.9 of version 1; register.promote=passed moves it"),
        ({}, (2, 0.9 + 1e-9, 1.5), HELD, False, "memory.recall = 0.9, and 0.9"),  # what a tag does not tell apart
        ({}, (2, 0.8, 1.5), HELD, False, "memory.recall = 0.8, and 0.9 of version 1"),
        (
            {"better_by": "loss_gain"},
            (2, 0.8, 1.5),
            HELD,
            True,
            "shuffled.loss - memory.loss = 1.5, and 1 of version 1",
        ),
        ({"better_by": "loss_gain"}, (2, 1.0, 0.5), HELD, False, "shuffled.loss - memory.loss = 0.5, and 1 of version"),
        ({}, (2, float("nan"), 1.5), HELD, False, "memory.recall = nan"),
        ({}, (2, 0.99, 1.5), Version("adapter", 1, {}), False, "version 1 says nothing of its memory.recall"),
        ({"promote": "passed"}, (2, 0.1, 0.1), HELD, True, "it meant version 1, and register.promote is passed"),
        ({"promote": "never"}, (2, 1.0, 9.0), HELD, False, "register.promote is never"),
        ({"promote": "never"}, (2, 1.0, 9.0), None, False, "register.promote is never"),
        ({}, (1, 0.9, 1.0), HELD, False, "has it already"),
    ],
)
def test_the_alias_moves(
    section: dict[str, str], new: tuple[int, float, float], holder: Version | None, moves: bool, reason: str
) -> None:
    number, recall, gain = new
    lines = gate_lines(figures(recall, gain), GateSection())
    decided = promotion(RegisterSection(**section), version(number, recall, gain), lines, holder)
    assert decided.moves is moves
    assert reason in decided.reason if reason else decided.reason == ""


def test_where_the_gate_asks_for_what_is_said_that_is_compared() -> None:
    found = {name: {**row, "said": row["recall"] / 2} for name, row in figures(0.9, 1.0).items()}
    lines = gate_lines(found, GateSection(min_said=0.4))
    decided = promotion(RegisterSection(), version(2, 0.1, 1.0), lines, Version("a", 1, {"ocrmem.memory.said": "0.4"}))
    assert decided.moves
    assert decided.reason == "memory.said = 0.45, and 0.4 of version 1"


@pytest.mark.parametrize(
    ("promote", "of_version", "of_holder", "moves"),
    [
        ("better", True, False, False),
        ("better", True, True, True),
        ("better", False, True, True),
        ("passed", True, False, True),
    ],
)
def test_a_version_that_changes_the_base_does_not_take_the_alias_of_one_that_does_not(
    promote: str, of_version: bool, of_holder: bool, moves: bool
) -> None:
    new, held = version(2, 1.0, 9.0), version(1, 0.9, 1.0)
    new.tags.update({LORA_TAG: "rank 8"} if of_version else {})
    held.tags.update({LORA_TAG: "rank 8"} if of_holder else {})
    lines = gate_lines(figures(1.0, 9.0), GateSection())
    decided = promotion(RegisterSection(promote=promote), new, lines, held)
    assert decided.moves is moves
    assert moves or "it changes the base model, and version 1 does not" in decided.reason


@pytest.mark.parametrize("promote", ["better", "passed"])
@pytest.mark.parametrize("variable", ["DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"])
@pytest.mark.parametrize("holder", [None, HELD])
def test_an_experiment_leaves_it(
    promote: str, variable: str, holder: Version | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "stiff-kale")
    lines = gate_lines(figures(1.0, 9.0), GateSection())
    decided = promotion(RegisterSection(promote=promote), version(2, 1.0, 9.0), lines, holder)
    assert not decided.moves
    assert "the DVC experiment stiff-kale" in decided.reason

"""What the command line says of itself, and of what it cannot read."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from ocrmem.cli import build_parser, main
from ocrmem.cli.parser import OWN
from ocrmem.errors import Exit, OcrMemError, UsageError
from ocrmem.steps import COMMANDS, GROUPS, STEPS

ROOT = Path(__file__).resolve().parents[2]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What leaves with 0 as help does."""
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("help",), ("--help",), ("--quiet",)])
def test_verbs_are_listed_by_purpose(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, *words)
    groups = {}
    for title, body in re.findall(r"^([a-z ]+):\n((?:    \S.*\n)+)", out, re.M):
        groups[title] = re.findall(r"^    ([a-z-]+)  ", body, re.M)
    assert list(groups) == [*GROUPS.values(), "help"]
    assert sorted(name for names in groups.values() for name in names) == sorted([*COMMANDS, *OWN])
    assert "ask" in groups[GROUPS["memory"]]


def test_every_step_is_for_one_of_the_purposes() -> None:
    assert {step.group for step in STEPS.values()} == set(GROUPS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_shows_an_example_inputs_outputs_and_the_page(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    step = COMMANDS[verb]
    out = shown(capsys, "help", verb)
    assert out == shown(capsys, verb, "--help")
    facts = dict(re.findall(r"^(reads|writes|example|docs): +(.+)$", out, re.M))
    assert facts.keys() == {"reads", "writes", "example", "docs"}
    assert (ROOT / facts["docs"]).is_file()
    words = shlex.split(facts["example"])
    assert words[:2] == ["ocrmem", verb]
    assert build_parser().parse_args(words[1:]).verb == verb
    for named in (*step.reads_named, *step.writes_named):
        inner = [shown(capsys, "help", verb, action) for action in ("run", "compile")] if verb == "pipeline" else [out]
        assert any(named in text.partition("reads:")[0] for text in inner), f"{named} is no argument of {verb}"


def test_help_reaches_the_actions_of_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "help", "pipeline", "run").startswith("usage: ocrmem pipeline run ")


WRONG = {
    "rendr": ("ocrmem: VERB cannot be 'rendr'. Did you mean render?", "usage: ocrmem VERB"),
    "help trian": ("ocrmem: VERB cannot be 'trian'. Did you mean train?", "usage: ocrmem VERB"),
    "xyzzy": ("only validate, preflight", "usage: ocrmem VERB"),
    "--quite render": ("ocrmem: has no option --quite. Did you mean --quiet?", "usage: ocrmem VERB"),
    "render --previw=3": ("ocrmem render: has no option --previw. Did you mean --preview?", "usage: ocrmem render "),
    "ask f --questoin x": ("has no option --questoin. Did you mean --question?", "usage: ocrmem ask "),
    "check --zzz": ("ocrmem check: has no option --zzz. See `ocrmem check --help`", "usage: ocrmem check "),
    "check one two": ("ocrmem check: does not take one two.", "usage: ocrmem check "),
    "pipeline rn": ("ocrmem pipeline: ACTION cannot be 'rn'. Did you mean run?", "usage: ocrmem pipeline "),
    "pipeline run a --locl": ("has no option --locl. Did you mean --local?", "usage: ocrmem pipeline run "),
    "synth --output d --style xx": ("--style cannot be 'xx', only tiny, en,", "usage: ocrmem synth "),
    "synth": ("the following arguments are required: --output", "usage: ocrmem synth "),
    # Refused by the step, not by the parser.
    "version --output d": ("--output: is for --open.", "usage: ocrmem version "),
    "train --hours 3": ("--hours: is for --plan alone.", "usage: ocrmem train "),
    "train --dry-run": ("--dry-run: is for a run on Kubernetes.", "usage: ocrmem train "),
    "encode a.png": ("encode: takes pictures and the file", "usage: ocrmem encode "),
    "render a.png": ("render: takes pictures to show", "usage: ocrmem render "),
    "pipeline run a": ("runs on this machine only.", "usage: ocrmem pipeline "),
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_shows_the_verbs_usage_and_the_nearest(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    said, usage = WRONG[line]
    assert main(line.split()) == Exit.USAGE
    captured = capsys.readouterr()
    assert captured.err.startswith(usage)
    assert said in captured.err.splitlines()[-1]
    assert captured.out == ""


def test_wrong_usage_with_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("train --nope --json", "--json version --output d"):
        assert main(line.split()) == Exit.USAGE
        captured = capsys.readouterr()
        assert json.loads(captured.out)["ok"] is False
        assert captured.err == ""


@pytest.mark.parametrize("line", ["{} check", "check {}", "pipeline {} list", "pipeline list {}", "{} pipeline list"])
@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_common_options_stand_anywhere(line: str, option: str) -> None:
    arguments = build_parser().parse_args(line.format(option).split())
    assert getattr(arguments, option[2:]) is True
    assert getattr(build_parser().parse_args(line.format("").split()), option[2:]) is False


def test_a_question_may_look_like_an_option() -> None:
    assert build_parser().parse_args(["ask", "f", "--question", "--what is it?"]).questions == ["--what is it?"]
    assert build_parser().parse_args(["ask", "--question", "a", "--", "--file"]).files == ["--file"]


def descendants(kind: type) -> set[type]:
    return {kind}.union(*(descendants(below) for below in kind.__subclasses__()))


def test_exit_codes_are_those_of_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    told = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", page, re.M)}
    assert told == {code.value: code.meaning for code in Exit}
    assert all(f"  {code.value:<4} {code.meaning}\n" in shown(capsys, "help") for code in Exit)
    assert {kind.exit_code for kind in descendants(OcrMemError)} == {Exit.FAILED, Exit.USAGE, Exit.PREEMPTED}
    assert UsageError.exit_code == Exit.USAGE

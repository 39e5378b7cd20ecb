"""What errors say to run can be run: every command in the texts of the package, collected from its code."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import small_workspace

from ocrmem.cli import build_parser, main
from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, Message
from ocrmem.dataset.samples import SampleMaker
from ocrmem.errors import DataError, UsageError
from ocrmem.generation.question import STDIN, read_question
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

ROOT = Path(__file__).resolve().parent.parent
COMMAND = re.compile(r"`(ocrmem [^`]+)`|Run: (ocrmem [^`\"]+)")
MAKE = re.compile(r"`make ([a-z-]+)`")
SETTING = re.compile(r"(?<![\w./{])(" + "|".join(RunConfig().as_dict()) + r")\.([a-z][a-z_]*)(?![\w.(/])")
# Files and modules that are called like settings.
NO_SETTINGS = {"py", "json", "html", "yaml", "safetensors", "jsonl", "csv", "md"}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module but docstrings, with their lines; what an f-string puts in stands as X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for inner in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            within.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            yield node.lineno, node.value


TEXTS = [
    (f"{path.relative_to(ROOT)}:{line}", text)
    for path in sorted((ROOT / "ocrmem").rglob("*.py"))
    for line, text in texts(path)
]
COMMANDS = [(place, found[1] or found[2]) for place, text in TEXTS for found in COMMAND.finditer(text)]


def test_commands_are_found_in_the_code() -> None:
    assert len(COMMANDS) > 50
    assert any("--from-adapter" in command for _, command in COMMANDS)


def test_every_command_of_a_text_is_one_of_the_command_line() -> None:
    """A bare verb may lack its arguments, and a verb that the text puts in is known where it is put."""
    wrong = []
    for place, command in COMMANDS:
        words = shlex.split(command)[1:]
        try:
            build_parser().parse_args(words)
        except UsageError as error:
            bare = len(words) == len(error.problems[0].place.split()) - 1
            if words[0] != "X" and not (bare and "are required" in str(error)):
                wrong.append(f"{place}: {error}")
    assert wrong == []


def test_every_target_of_make_that_a_text_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {target for _, text in TEXTS for target in MAKE.findall(text)}
    assert [target for target in named if not re.search(rf"^{target}:", makefile, re.M)] == []


def test_every_setting_that_a_text_names_is_there() -> None:
    values = RunConfig().as_dict()
    wrong = [
        f"{place}: {section}.{field}"
        for place, text in TEXTS
        for section, field in SETTING.findall(text)
        if field not in values[section] and field not in NO_SETTINGS
    ]
    assert wrong == []


LINE = '{"messages": [{"role": "user", "content": "Who?"}]}\n'


def test_of_several_conversations_the_command_gives_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my questions.jsonl").write_text(LINE * 3, encoding="utf-8")
    with pytest.raises(DataError, match="holds 3 conversations") as caught:
        read_question(Path("my questions.jsonl").read_bytes(), "my questions.jsonl")
    [command] = re.findall(r"`([^`]+)`", caught.value.problems[0].remedy)
    first, last = command.split(" | ")
    one = subprocess.run(["bash", "-c", first], capture_output=True, check=True).stdout
    assert read_question(one, STDIN)[0].messages[0].content == "Who?"
    build_parser().parse_args(shlex.split(last)[1:])


@pytest.mark.parametrize("place", [STDIN, "messages"])
def test_where_there_is_no_file_no_command_reads_one(place: str) -> None:
    with pytest.raises(DataError) as caught:
        read_question((LINE * 2).encode(), place)
    assert place not in caught.value.problems[0].remedy
    assert "sed" not in caught.value.problems[0].remedy


@pytest.mark.parametrize(
    ("threshold", "max_pages", "advised"), [(0, 2, True), (0, 1, False), (10_000, 2, False)], ids=str
)
def test_fewer_pages_are_advised_where_there_are_some(threshold: int, max_pages: int, advised: bool) -> None:
    values = {
        "model": {"context_threshold": threshold, "max_seq_length": 64, "vision_embedding_size": 64},
        "render": {"page_size": 256, "token_size": 32, "line_height": 32, "max_pages": max_pages},
    }
    maker = SampleMaker(RunConfig.model_validate(values), build_tiny_tokenizer())
    said = [Message("user", "a b"), Message("assistant", "c"), Message("user", "d"), Message("assistant", "a " * 200)]
    made = maker.make(Conversation("one", tuple(said), "train", "a.jsonl:1"))
    [problem] = [problem for problem in made.problems if "max_seq_length" in problem.message]
    assert ("lower render.max_pages" in problem.remedy) == advised
    assert problem.remedy.startswith("Raise model.max_seq_length")


def test_a_path_that_render_names_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_workspace(tmp_path, features=False)
    monkeypatch.chdir(tmp_path)
    train = tmp_path / "data" / "train.jsonl"
    train.write_text(train.read_text(encoding="utf-8") + "no JSON\n", encoding="utf-8")
    assert main(["render", "--skip-bad", "--config", "params.yaml"]) == 0
    said = capsys.readouterr()
    [named] = re.findall(r"see (\S+rejects\.jsonl)", said.out + said.err)
    assert "no JSON" in Path(named).read_text(encoding="utf-8")

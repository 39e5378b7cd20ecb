"""What errors say to run can be run: every command in the texts of the package, collected from its code, and run."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.models import small_settings, small_workspace, write_conversations
from support.quick import QUICK

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


# Commands of remedies that are not run here, with the reason.
NOT_RUN = {
    "pipeline submit": "needs a cluster; tests/pipelines submits to a server of its own",
    "pipeline compile": "takes kfp seconds; tests/pipelines compiles",
    "train --nproc": "starts processes, each of which imports torch; tests/distributed has them",
    "ask --question": "needs a base model of 93 MB; tests/generation asks small ones",
    "import-adapter": "needs what OCR-MEM left; tests/steps/test_smallest_runs.py imports one",
    "import-adapter --output": "the same",
}


def form(words: list[str]) -> str:
    """A command without what is of one case: its verb, and its options without their values."""
    second = words[1:2] if words[0] == "pipeline" else []
    return " ".join([words[0], *second, *(word for word in words if word.startswith("--"))])


def called(words: list[str]) -> dict[str, Any]:
    """Run a command in this process; return what it says in JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        code = main([*words, "--json"])
    said = json.loads(out.getvalue())
    assert said["ok"] == (code == 0)
    return said


class Reader:
    """Somebody who does what errors say, and knows nothing else."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def follow(self, words: list[str]) -> dict[str, Any]:
        """Run a command; as long as it fails, run what its remedies name, likewise, and then the command again."""
        while not (said := called(words))["ok"]:
            self.ran.append(form(words))
            assert len(self.ran) < 40, self.ran
            remedies = " ".join(problem["remedy"] for problem in said["problems"])
            commands = [shlex.split(found[1] or found[2])[1:] for found in COMMAND.finditer(remedies)]
            assert commands, said["problems"]
            for command in commands:
                self.follow(command)
        self.ran.append(form(words))
        return said


def remove(*names: str) -> Callable[[], None]:
    def removing() -> None:
        for name in names:
            for path in Path().glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return removing


def spoil(name: str) -> Callable[[], None]:
    return lambda: next(Path().glob(name)).write_bytes(b"spoilt")


# What became of a workspace on which all ran, what is run then, and what the errors lead to.
SPOILT: dict[str, tuple[Callable[[], None], list[str], set[str]]] = {
    "no features": (remove("features"), ["train"], {"encode"}),
    "the rows of features are lost": (remove("features/rows-*.bin"), ["train"], {"encode"}),
    "no dataset": (remove("dataset"), ["encode"], {"render"}),
    "a shard is lost": (remove("dataset/samples/*"), ["check"], {"render"}),
    "a manifest is spoilt": (spoil("dataset/manifest.json"), ["version"], {"render"}),
    "no adapter": (remove("adapter"), ["evaluate"], {"train"}),
    "an evaluation is spoilt": (spoil("reports/evaluation.json"), ["register"], {"evaluate"}),
    "no smoke test": (remove("smoke"), ["register"], {"smoke"}),
}


# What the remedies of the first error lead to where nothing was made yet, and what is run by itself.
FROM_NOTHING = {"base", "render", "encode", "smoke", "train", "evaluate", "register"}
ALONE = (
    "render --preview 5",
    "encode a.png --output a.safetensors",
    "train --resume",
    "train --from-adapter imported",
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader in a workspace of conversations and settings alone, who wants to register an adapter."""
    root = tmp_path_factory.mktemp("reader")
    train = QUICK["train"] | {"max_steps": 1, "save_steps": 1}
    values = small_settings(root, **(QUICK | {"train": train, "smoke": {"samples": 1}}))
    (root / "remote").mkdir()
    values["version"] = {"remote": str(root / "remote")}
    (root / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
    write_conversations(root / "data", train=4, held_out=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        reader = Reader()
        reader.follow(["register"])
        yield reader


def test_who_follows_the_remedies_gets_from_nothing_to_a_registered_adapter(reader: Reader) -> None:
    assert set(reader.ran) >= FROM_NOTHING


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_lost_comes_back_by_what_the_error_says(case: str, reader: Reader) -> None:
    happened, words, led_to = SPOILT[case]
    before = len(reader.ran)
    happened()
    reader.follow(words)
    assert led_to <= set(reader.ran[before:])


def test_a_dataset_that_its_remote_lost_is_pushed_again(reader: Reader) -> None:
    digest = reader.follow(["version"])["md5"]
    remove("remote/*")()
    reader.follow(["version", "--open", digest, "--output", "again"])
    assert Path("again/manifest.json").is_file()


def test_conversations_of_another_form_are_converted_as_the_error_says(reader: Reader, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]
    (tmp_path / "my export.json").write_text(json.dumps([{"conversations": turns}, {}]), encoding="utf-8")
    at = ["--set", f"data.path={tmp_path}"]
    [problem] = called(["validate", *at])["problems"]
    [(command, _)] = COMMAND.findall(problem["remedy"])
    words = shlex.split(command)[1:]
    assert not called(words)["ok"]
    reader.follow([*words, "--skip-bad"])
    assert list(Path("converted").glob("*.jsonl"))


@pytest.mark.parametrize("command", ALONE)
def test_a_command_of_a_remedy_runs(command: str, reader: Reader) -> None:
    Image.linear_gradient("L").save("a.png")
    if not Path("imported").exists():
        shutil.copytree("adapter", "imported")
    assert called(shlex.split(command))["ok"]


def test_help_of_a_verb_and_the_pipelines_of_the_checkout_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert called(["pipeline", "list"])["ok"]
    with pytest.raises(SystemExit, match="0"):
        main(["help", "train"])
    assert "--resume" in capsys.readouterr().out


def test_every_command_of_a_text_is_run_or_has_a_reason() -> None:
    """A bare verb stands for one with what it needs, and a verb that the text puts in is one of the others."""
    run = FROM_NOTHING | {form(shlex.split(command)) for command in ALONE}
    run |= {
        "version",
        "version --open",
        "convert",
        "convert --output",
        "convert --output --skip-bad",
        "help",
        "pipeline list",
    }
    forms = {form(shlex.split(command)[1:]): place for place, command in COMMANDS}
    assert {name: place for name, place in forms.items() if name not in run | NOT_RUN.keys() | {"X"}} == {}
    assert run & NOT_RUN.keys() == set()


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

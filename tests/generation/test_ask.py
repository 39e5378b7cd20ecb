"""`ask` and `chat` as commands: without params.yaml, what they print, and how a conversation is broken off and kept."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.sessions import new_session, write_adapter

import ocrmem
from ocrmem.cli import main
from ocrmem.config import RunConfig
from ocrmem.conversations.parse import parse_line
from ocrmem.errors import ConfigError, ModelError
from ocrmem.generation import settings
from ocrmem.generation.chat import Repl
from ocrmem.generation.chat_session import ChatSession
from ocrmem.generation.memory import Memory
from ocrmem.generation.settings import adapter_and_settings, bring_base, models_of, settings_of
from ocrmem.model.configuration import MEMConfig

NOTES = "ana tea was the\n" * 12
CARRIED = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Settings of a run whose directory holds models/, adapter/ and notes.txt."""
    root = tmp_path_factory.mktemp("asked")
    (root / "notes.txt").write_text(NOTES, encoding="utf-8")
    return write_adapter(root)


@pytest.fixture(autouse=True)
def in_its_directory(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(config.paths.adapter).parent)


def typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_json_has_the_fields_of_the_answer_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ask", "notes.txt", "--question", "ask ana", "--question", "the", "--adapter", "adapter"]
    assert main([*command, "--compare", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    memory = ocrmem.Memory.load("adapter").read(NOTES)
    expected = memory.ask("ask ana")
    for name in ("text_tokens", "memory_tokens", "pages", "warnings"):
        assert printed[name] == getattr(expected, name)
    assert printed["answers"][0]["text"] == expected.text
    assert printed["text"] == f"{expected.text}\n{memory.ask('the').text}"
    assert [set(answer["compared"]) for answer in printed["answers"]] == [{"full_text", "truncated", "no_memory"}] * 2


def test_a_picture_is_asked_about_and_what_was_done_to_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image.new("L", (512, 300), 255)
    image.paste(0, (10, 10, 200, 40))
    image.save(tmp_path / "scan.jpg")
    command = ["ask", str(tmp_path / "scan.jpg"), "--question", "the", "--adapter", "adapter"]
    assert main(command) == 0
    said = capsys.readouterr()
    expected = ocrmem.Memory.load("adapter").read_picture(tmp_path / "scan.jpg").ask("the")
    assert said.out == f"{expected.text}\n\n{expected.told}\n"
    assert expected.pages == 2
    told = " ".join(said.err.split())
    assert "scan.jpg is a picture, whose text is not counted: 512 x 300 px, shrunk to 256 x 150, on a page of" in told


def test_every_answer_says_how_much_text_became_memory(
    config: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(NOTES, monkeypatch)
    Path("params.yaml").write_text(json.dumps(config.as_dict()), encoding="utf-8")
    assert main(["ask", "-", "--question", "the", "--config", "params.yaml"]) == 0
    answer = ocrmem.Memory.load(config=config).read(NOTES).ask("the")
    assert capsys.readouterr().out == f"{answer.text}\n\n{answer.told}\n"


def test_a_typing_error_is_told_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatSession, "open", None)
    for verb, options in (("ask", ["--question", "the"]), ("chat", [])):
        assert main([verb, "note.txt", "--adapter", "adapter", *options]) == 2
        assert "note.txt: is not there. Did you mean notes.txt?" in capsys.readouterr().err
    assert main(["ask", "notes.txt", "--question", "the", "--adapter", "adaptor"]) == 2
    assert "'adaptor' is not a directory" in capsys.readouterr().err
    assert main(["ask", "notes.txt", "--question", " ", "--adapter", "adapter"]) == 1
    assert "question: is empty" in capsys.readouterr().err
    assert main(["chat", "-", "--adapter", "adapter"]) == 2
    assert "-: is standard input" in capsys.readouterr().err


def test_a_chat_is_held_through_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed("/save early.jsonl\nask ana\n\n/tokens\n/save said.jsonl\n/nope\n/pages drawn\n/quit\nnever\n", monkeypatch)
    assert main(["chat", "notes.txt", "--adapter", "adapter"]) == 0
    captured = capsys.readouterr()
    memory = ocrmem.Memory.load("adapter").read(NOTES)
    answer = memory.say("ask ana")
    lines = captured.out.splitlines()
    assert lines[:2] == [answer.text, memory.told()]
    assert lines[-1] == "drawn in drawn"
    assert f"1 answer. {memory.told()}" in captured.err
    assert answer.told in captured.err.replace("\n", " ")
    assert "/save: has no answer to keep yet" in captured.err
    assert "/nope: is no command" in captured.err
    assert len(list(Path("drawn").glob("page-*.png"))) == len(memory.pages())
    saved = Path("said.jsonl").read_bytes()
    parsed = parse_line(saved.strip(), "said.jsonl")
    assert not parsed.problems
    assert [message.content for message in parsed.messages] == [message.content for message in memory.conversation()]
    assert [message.weight for message in parsed.messages if message.role == "assistant"] == [0, 1]


def test_a_saved_chat_is_asked_about_and_goes_on(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory(new_session(context_threshold=0))
    repl = Repl(memory)
    repl._obey("ask ana")
    repl._obey("/save kept.jsonl")
    repl._obey("/save kept.jsonl")
    other = Repl(memory)
    other._obey("the")
    other._obey("/save kept.jsonl")
    assert "kept.jsonl: is there already" in capsys.readouterr().err
    assert ocrmem.ask("kept.jsonl", "the", "adapter")["pages"] == 1
    assert ocrmem.generate(config, conversation="kept.jsonl")["expected"] == repl.answers[0].text


def test_an_answer_that_is_cancelled_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(new_session(context_threshold=0)).read(NOTES)
    repl = Repl(memory)
    expected = Memory(new_session(context_threshold=0)).read(NOTES).ask("the").text

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(memory.session.scorer.model, "generate", interrupted)
        repl._obey("ask ana")
    assert len(memory.messages) == 2
    repl._obey("the")
    assert [answer.text for answer in repl.answers] == [expected]


def test_json_of_a_chat_is_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed("ask ana\nthe\n", monkeypatch)
    assert main(["chat", "--adapter", "adapter", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [answer["question"] for answer in answers] == ["ask ana", "the"]
    assert [answer["pages"] for answer in answers] == [0, 1]


def test_bytes_that_are_no_text_end_a_chat_with_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    assert main(["chat", "--adapter", "adapter"]) == 1
    assert "standard input: is not UTF-8" in capsys.readouterr().err


def test_an_adapter_s_own_settings_are_those_of_its_run(config: RunConfig) -> None:
    directory, found = adapter_and_settings("adapter", None)
    assert directory == Path("adapter")
    assert found.render == config.render
    assert found.model.model_copy(update={"device": "cpu"}) == config.model
    assert found.data.recent_turns == config.data.recent_turns
    assert found.paths.models == "models"
    assert adapter_and_settings(None, config) == (Path(config.paths.adapter), config)


def test_a_package_s_provenance_says_what_its_adapter_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("adapter", tmp_path, dirs_exist_ok=True)
    (tmp_path / "README.md").touch()
    params = {"model": {"precision": "bfloat16", "device": "cuda"}, "evaluate": {"max_new_tokens": 7}}
    checked: list[Path] = []
    monkeypatch.setattr(settings, "verify_package", checked.append)
    monkeypatch.setattr(settings, "read_provenance", lambda _: {"params": params})
    found = adapter_and_settings(tmp_path, None)[1]
    assert (found.model.precision, found.evaluate.max_new_tokens) == ("bfloat16", 7)
    assert found.model.device == "auto", "where it was trained says nothing of where it answers"
    assert checked == [tmp_path]


def test_settings_that_cannot_be_are_told() -> None:
    with pytest.raises(ConfigError, match=r"config\.json of the adapter: render\.line_height"):
        settings_of(MEMConfig("tiny", "tiny", 64, 8, page_size=256, token_size=32, line_height=31))


def test_a_base_that_can_be_fetched_comes_once_to_the_user_s_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = settings_of(MEMConfig(CARRIED, "encoder", base_revision="abc", max_pages=4))
    assert found.paths.models == str(tmp_path / "ocrmem" / "models" / "HuggingFaceTB--SmolLM2-135M-Instruct")
    asked: list[tuple[str, str | None, Path]] = []

    def fetch(name: str, revision: str | None, models: Path, fingerprint: str | None) -> str:
        asked.append((name, revision, models))
        (models / "base").mkdir(parents=True)
        (models / "base" / "source.json").write_text(json.dumps({"name": name, "revision": revision}))
        return "here"

    monkeypatch.setattr(settings, "fetch", fetch)
    for _ in range(2):
        bring_base(found)
    assert asked == [(CARRIED, "abc", models_of(CARRIED))]
    assert "this happens once" in capsys.readouterr().err
    elsewhere = found.model_copy(update={"paths": found.paths.model_copy(update={"models": "models"})})
    bring_base(elsewhere)
    assert len(asked) == 1, "a run's own models are left to `ocrmem base`"


def test_a_changed_adapter_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "README.md").write_text("x", encoding="utf-8")
    with pytest.raises(ModelError, match=r"provenance\.json: is not there"):
        adapter_and_settings(str(package), None)

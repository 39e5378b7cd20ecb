"""Natural mistakes in Python are answered with what to write, by one error and without a traceback of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.sessions import new_session

import ocrmem
from ocrmem import (
    AdapterOnlyTrainer,
    AdapterTrainingArguments,
    ChatSession,
    MEMConfig,
    MEMModel,
    Memory,
    RunConfig,
)
from ocrmem.boxed import ENGLISH, boxed
from ocrmem.errors import ConfigError, MissingInputError, OcrMemError
from ocrmem.steps import COMMANDS

LINEAR = torch.nn.Linear(1, 1)
MISTAKES: dict[str, tuple[Callable[[], Any], type[OcrMemError], str]] = {
    "a folder that is no adapter": (lambda: Memory.load("empty"), MissingInputError, "Give an adapter directory"),
    "no folder": (lambda: Memory.load("nope"), ConfigError, r"one in the box \(english"),
    "a number for an adapter": (lambda: Memory.load(5), ConfigError, "Give a name in the box"),
    "settings' file as config": (lambda: Memory.load(config="p.yaml"), ConfigError, r"RunConfig.load\('p.yaml'\)"),
    "values as config": (lambda: Memory.load(config={}), ConfigError, r"RunConfig.from_dict\(values\)"),
    "Memory of a name": (lambda: Memory("adapter"), ConfigError, r"ocrmem.Memory.load\("),
    "session of a name": (lambda: ChatSession("adapter"), ConfigError, r"ChatSession.open\(adapter="),
    "adapter as config": (lambda: ChatSession.open("adapter"), ConfigError, r"ChatSession.open\(adapter="),
    "a model of no adapter": (lambda: MEMModel.from_pretrained("empty"), MissingInputError, "adapter directory"),
    "values to load": (lambda: RunConfig.load({}), ConfigError, "RunConfig.from_dict"),
    "a file to from_dict": (lambda: RunConfig.from_dict("p.yaml"), ConfigError, "RunConfig.load"),
    "nothing to from_dict": (lambda: RunConfig.from_dict(None), ConfigError, "was given None"),
    "no such settings": (lambda: RunConfig.load("nope.yaml"), ConfigError, "nope.yaml: is not there"),
    "text for a file": (lambda: ocrmem.ask("Emma has a dog.", "who?"), MissingInputError, "Memory.read takes a text"),
    "a folder to ask": (lambda: ocrmem.ask("empty", "who?"), ConfigError, r"Name its files, as in empty/\*"),
    "a number to ask": (lambda: ocrmem.ask(3, "who?"), ConfigError, "a list of paths, and was given 3"),
    "no question": (lambda: ocrmem.ask("note.txt", []), ConfigError, "at least one of each"),
    "a number as question": (lambda: ocrmem.ask("note.txt", 4), ConfigError, "Ask in words"),
    "a file as settings": (lambda: ocrmem.ask("note.txt", "a?", config="p.yaml"), ConfigError, "RunConfig.load"),
    "a number to convert": (lambda: ocrmem.convert(3, "out"), ConfigError, "a list of paths, and was given 3"),
    "no folder to convert to": (lambda: ocrmem.convert("note.txt", None), ConfigError, r"Give a string or a pathlib"),
    "a number for a folder": (lambda: ocrmem.synth(3), ConfigError, "Give a string or a pathlib.Path"),
    "fewer than none": (lambda: ocrmem.synth("out", count=-1), ConfigError, "Give a number above 0"),
    "a conversation itself": (
        lambda: ocrmem.generate(RunConfig(), conversation={"messages": []}),
        ConfigError,
        r"generate\(conversation\): takes the path",
    ),
    "a file to RunConfig": (lambda: RunConfig("p.yaml"), ConfigError, r"Write RunConfig.load\(path\)"),
    "values to RunConfig": (lambda: RunConfig({}), ConfigError, r"Write RunConfig.from_dict\(values\)"),
    "a file by name": (lambda: RunConfig(path="p.yaml"), ConfigError, "path: is an unknown field"),
    "a field unknown": (lambda: RunConfig(train={"max_step": 4}), ConfigError, "Did you mean train.max_steps"),
    "a model of a name": (lambda: MEMModel("adapter"), ConfigError, r"MEMModel.from_pretrained\(folder\)"),
    "a model of settings": (lambda: MEMModel(RunConfig()), ConfigError, "was given something of type RunConfig"),
    "a base by name": (lambda: MEMModel(MEMConfig(), "Qwen/Qwen3-0.6B"), ConfigError, "Give the loaded model"),
    "an encoder by path": (lambda: MEMModel(MEMConfig(), None, "models"), ConfigError, r"MEMModel\(ocr_embed\)"),
    "a model of a number": (lambda: MEMModel.from_pretrained(3), ConfigError, "Give a string or a pathlib.Path"),
    "a file for a model": (lambda: MEMModel.from_run_config("p.yaml", with_encoder=False), ConfigError, r"load\('p.ya"),
    "a file for its settings": (
        lambda: MEMModel.from_pretrained(boxed(ENGLISH), run_config="p.yaml"),
        ConfigError,
        r"RunConfig.load\('p.yaml'\)",
    ),
    "a base for an adapter": (
        lambda: MEMModel.from_pretrained(boxed(ENGLISH), base_llm_model="Qwen/Qwen3-0.6B"),
        ConfigError,
        r"MEMModel\(base_llm_model\): takes a language model",
    ),
    "a device unknown": (lambda: MEMModel.from_pretrained(boxed(ENGLISH), device="gpu"), ConfigError, "auto, cpu or"),
    "a file for MEMConfig": (lambda: MEMConfig.from_run_config("p.yaml"), ConfigError, r"RunConfig.load\('p.yaml'\)"),
    "a trainer of a name": (lambda: AdapterOnlyTrainer("adapter", None), ConfigError, "MEMModel.from_run_config"),
    "a folder to train in": (lambda: AdapterOnlyTrainer(LINEAR, "out"), ConfigError, r"AdapterTrainingArguments\("),
    "arguments of others": (lambda: AdapterOnlyTrainer(LINEAR, {}), ConfigError, "takes AdapterTrainingArguments"),
    "data by its file": (
        lambda: AdapterOnlyTrainer(LINEAR, AdapterTrainingArguments(), train_dataset="data/train.jsonl"),
        ConfigError,
        "Give a list of samples",
    ),
    "settings as arguments": (lambda: AdapterTrainingArguments(RunConfig()), ConfigError, r"from_run_config"),
    "a file as arguments": (lambda: AdapterTrainingArguments.from_run_config("p.yaml"), ConfigError, "RunConfig.load"),
    "an empty name": (lambda: Memory.load(""), ConfigError, r"one in the box \(english"),
    "an old adapter by name": (lambda: ocrmem.import_adapter("empty", "out"), MissingInputError, "Give a folder that"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("Emma has a dog.", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_error_that_says_what_to_write(mistake: str) -> None:
    call, kind, said = MISTAKES[mistake]
    with pytest.raises(kind, match=said) as caught:
        call()
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("verb", [name for name, step in COMMANDS.items() if step.takes_config and step.function])
@pytest.mark.parametrize("given", ["params.yaml", {"train": {}}, None, 3], ids=repr)
def test_a_verb_wants_a_run_config(verb: str, given: Any) -> None:
    name = verb.replace("-", "_")
    with pytest.raises(ConfigError, match=rf"ocrmem\.{name}: takes a RunConfig.*Give RunConfig\.\w+\(") as caught:
        getattr(ocrmem, name)(given)
    assert len(caught.value.problems) == 1
    with pytest.raises(ConfigError, match="takes a RunConfig"):
        getattr(ocrmem, name)(config=given)


@pytest.mark.parametrize("overrides", ["train.max_steps=3", 3], ids=repr)
def test_overrides_are_a_list_or_a_dict(overrides: Any, folder: Path) -> None:
    (folder / "p.yaml").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="overrides: are") as caught:
        RunConfig.load("p.yaml", overrides)
    assert sum("overrides" in problem.place for problem in caught.value.problems) == 1


@pytest.mark.parametrize("messages", ["Who has a dog?", {"messages": []}, {"role": "user", "content": "a"}, 3, None])
def test_messages_are_a_list(messages: Any) -> None:
    with pytest.raises(ConfigError, match=r"takes a list of messages.*Write answer\(\[") as caught:
        new_session().answer(messages)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(("given", "said"), [({"tokenizer": "tok"}, "tokenizer"), ({"config": "p.yaml"}, "RunConfig")])
def test_a_session_takes_no_names_of_its_parts(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"ChatSession\({next(iter(given))}\): takes .*{said}"):
        ChatSession(new_session().model, **given)


def test_a_picture_is_a_path() -> None:
    with pytest.raises(ConfigError, match="read_picture: takes the path"):
        Memory(new_session()).read_picture(3)


def test_the_doctor_says_which_argument_is_wrong() -> None:
    with pytest.raises(TypeError, match="model is a str, not a Module"):
        ocrmem.gradflow.check("model", {})
    with pytest.raises(TypeError, match="batch is a str, not a Mapping"):
        ocrmem.gradflow.check(torch.nn.Linear(1, 1), "batch")


def test_a_misspelt_verb_is_known_to_python() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rendr'") as caught:
        ocrmem.rendr  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("rendr", ocrmem)

"""`generate`: the same answer as in evaluation, from a directory or the registry, and errors that help."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.evaluated import workspace_with_adapter

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.errors import ConfigError, DataError, MissingInputError, ModelError, OcrMemError
from ocrmem.evaluation.evaluate import evaluate
from ocrmem.evaluation.scoring import Scorer
from ocrmem.generation.generate import generate
from ocrmem.generation.question import read_question
from ocrmem.registry import register


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    gate = {
        "min_recall": 0.0,
        "max_shuffled_recall": 0.0,
        "max_no_memory_recall": 0.0,
        "min_loss_gain": -100.0,
    }
    return workspace_with_adapter(tmp_path_factory.mktemp("workspace"), register={"gate": gate})


@pytest.fixture(scope="module")
def samples(config: RunConfig) -> list[Sample]:
    return MemoryDataset.open(config.paths.dataset).samples("eval")


@pytest.fixture(scope="module")
def said(config: RunConfig) -> dict[str, str]:
    """What the evaluation heard from memory, by sample id; it also lets `register` run."""
    heard: dict[str, str] = {}
    real = Scorer.answers

    def listening(self: Scorer, cases: list) -> list[str]:
        answers = real(self, cases)
        for case, answer in zip(cases, answers, strict=True):
            heard.setdefault(case.sample_id, answer)  # memory is the first variant
        return answers

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Scorer, "answers", listening)
        evaluate(config)
    return heard


def write_question(path: Path, sample: Sample, *, answered: bool = False) -> Path:
    messages = [{"role": m.role, "content": m.content} for m in (*sample.history, *sample.prompt)]
    if answered:
        messages.append({"role": "assistant", "content": sample.answer})
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    return path


def with_memory(samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.has_memory]


def test_a_question_gets_the_answer_that_evaluation_heard(
    config: RunConfig, samples: list[Sample], said: dict[str, str], tmp_path: Path
) -> None:
    for sample in with_memory(samples):
        found = generate(config, conversation=write_question(tmp_path / "q.json", sample))
        assert found["answer"] == said[sample.id]
        assert found["memory"] is True
        assert found["history_tokens"] == sample.history_tokens
        assert found["vision_tokens"] == sample.memory_tokens
        assert found["memory_tokens"] == sample.memory_tokens + 2
        assert found["pages"] == len(sample.pages)
        assert found["compression_ratio"] == pytest.approx(sample.compression_ratio, abs=1e-4)
        assert found["expected"] is None
        assert found["warnings"] == []
    assert f"{sample.history_tokens} text tokens of history became {sample.memory_tokens} vision" in str(
        found["summary"]
    )
    assert found["summary"][0] == found["answer"]


@pytest.mark.slow
def test_the_registered_champion_answers_as_the_local_adapter(
    config: RunConfig, samples: list[Sample], said: dict[str, str], tmp_path: Path
) -> None:
    assert register(config)["alias"] == "champion"
    for number, sample in enumerate(with_memory(samples)[:3]):
        path = write_question(tmp_path / f"{number}.json", sample)
        for reference in ("models:/ocrmem-adapter@champion", "models:/ocrmem-adapter/1"):
            found = generate(config, reference, path)
            assert {**found, "adapter": None} == {**generate(config, None, path), "adapter": None}
            assert found["answer"] == said[sample.id]


def test_a_short_history_stays_text_and_says_so(config: RunConfig, samples: list[Sample], tmp_path: Path) -> None:
    short = next(sample for sample in samples if not sample.has_memory)
    found = generate(config, conversation=write_question(tmp_path / "q.json", short))
    assert found["memory"] is False
    assert (found["vision_tokens"], found["memory_tokens"], found["pages"]) == (0, 0, 0)
    assert found["compression_ratio"] is None
    assert any("it stayed text" in line for line in found["summary"])


def test_the_adapter_s_own_page_settings_count(config: RunConfig, samples: list[Sample], tmp_path: Path) -> None:
    path = write_question(tmp_path / "q.json", with_memory(samples)[0])
    expected = generate(config, conversation=path)
    render = config.render.model_copy(update={"max_pages": 1, "tab_width": 8, "newlines": "flow"})
    model = config.model.model_copy(update={"context_threshold": 200, "drop_blank_tokens": False})
    changed = config.model_copy(update={"render": render, "model": model})
    assert generate(changed, conversation=path) == expected


def test_the_answer_that_is_there_is_left_out_and_told(
    config: RunConfig, samples: list[Sample], said: dict[str, str], tmp_path: Path
) -> None:
    sample = with_memory(samples)[0]
    found = generate(config, conversation=write_question(tmp_path / "q.json", sample, answered=True))
    assert found["expected"] == sample.answer
    assert found["answer"] == said[sample.id]


def test_pages_over_the_limit_are_told(config: RunConfig, tmp_path: Path) -> None:
    turns = []
    for _ in range(20):
        turns += [{"role": "user", "content": "ana tea"}, {"role": "assistant", "content": "the and was"}]
    path = tmp_path / "q.json"
    path.write_text(json.dumps({"messages": [*turns, {"role": "user", "content": "ask ana"}]}), encoding="utf-8")
    found = generate(config, conversation=path)
    assert found["pages"] == 2
    assert found["dropped_pages"] == 3
    assert found["compression_ratio"] < found["history_tokens"] / found["memory_tokens"]
    assert "3 oldest pages" in found["warnings"][0]


@pytest.mark.parametrize(
    ("changes", "measure"),
    [({"feature_mean": (1.0, 30.0)}, "shift"), ({"feature_std": (4.0, 0.0)}, "spread")],
)
def test_features_unlike_those_of_training_are_warned_of(
    config: RunConfig, samples: list[Sample], tmp_path: Path, changes: dict, measure: str
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    tensors = load_file(Path(config.paths.adapter) / "adapter.safetensors")
    tensors |= {name: tensors[name] * factor + shift for name, (factor, shift) in changes.items()}
    save_file(tensors, adapter / "adapter.safetensors")
    (adapter / "config.json").write_bytes((Path(config.paths.adapter) / "config.json").read_bytes())
    longest = max(with_memory(samples), key=lambda sample: sample.memory_tokens)
    path = write_question(tmp_path / "q.json", longest)
    found = generate(config, str(adapter), path)
    assert found["feature_distance"][measure] > 1
    assert "unlike those the adapter was trained on" in found["warnings"][0]
    usual = generate(config, None, path)["feature_distance"]
    assert usual["shift"] < 1
    assert usual["spread"] < 0.7


def test_a_tampered_package_is_not_loaded(
    config: RunConfig, samples: list[Sample], said: dict[str, str], tmp_path: Path
) -> None:
    register(config)
    package = tmp_path / "package"
    package.mkdir()
    for file in (Path(config.registry.uri.removeprefix("sqlite:///")).parent / "package").iterdir():
        (package / file.name).write_bytes(file.read_bytes())
    path = write_question(tmp_path / "q.json", with_memory(samples)[0])
    assert generate(config, str(package), path)["answer"] == said[with_memory(samples)[0].id]
    (package / "config.json").write_bytes((package / "config.json").read_bytes().replace(b'"sum"', b'"concat"'))
    with pytest.raises(ModelError, match=r"not what its provenance says: config\.json"):
        generate(config, str(package), path)


SHARE_GPT = {"conversations": [{"from": "human", "value": "ana tea"}, {"from": "gpt", "value": "the"}]}
OPEN_AI = {"messages": [{"role": "user", "content": "ana tea"}, {"role": "assistant", "content": "the"}]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("value", "ask"),
    [
        (SHARE_GPT, {"from": "human", "value": "ask ana"}),
        (OPEN_AI, {"role": "user", "content": "ask ana"}),
        (OPEN_AI, {"role": "user", "content": [{"type": "text", "text": "ask ana"}]}),
    ],
)
def test_both_forms_are_read_on_one_line_or_many(value: dict, ask: dict, indent: int | None) -> None:
    (form,) = value
    raw = json.dumps({form: [*value[form], ask]}, indent=indent).encode() + b"\n"
    conversation, expected = read_question(raw, "q.json")
    assert expected is None
    assert [message.role for message in conversation.messages] == ["user", "assistant", "user", "assistant"]
    assert conversation.messages[2].content == "ask ana"
    assert [message.weight for message in conversation.messages] == [0, 0, 0, 1]
    _, expected = read_question(json.dumps(value).encode(), "q.json")
    assert expected == "the"


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from ocrmem.generation import question

    stream = io.TextIOWrapper(io.BytesIO(json.dumps(OPEN_AI).encode()))
    monkeypatch.setattr(question.sys, "stdin", stream)
    assert question.read_source("-", "") == (json.dumps(OPEN_AI).encode(), "standard input")


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "q.json"),
        (b"not json", "broken JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "not a JSON object"),
        (b"{}", "has no messages"),
        (line(messages=[]), "has no messages"),
        (line(messages="hello"), "has no messages"),
        (line(messages=["hello"]), "message 1"),
        (line(messages=[{"role": "user", "content": ""}]), "message 1"),
        (line(messages=[{"role": "wizard", "content": "x"}]), "unknown role"),
        (line(messages=[{"role": "system", "content": "x"}]), "no user turn"),
        (line(messages=[{"role": "assistant", "content": "x"}]), "no user turn"),
        (line(**OPEN_AI) + b"\n" + line(**OPEN_AI), "holds 2 conversations"),
        (b"{" * 200_000, "broken JSON"),
    ],
)
def test_what_cannot_be_read_is_a_problem_with_its_place(raw: bytes, message: str) -> None:
    with pytest.raises(OcrMemError, match=message) as caught:
        read_question(raw, "q.json")
    assert isinstance(caught.value, DataError)
    assert all(problem.place.startswith("q.json") for problem in caught.value.problems)


def test_files_that_are_not_there_are_named(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"absent\.json: is not there"):
        generate(config, conversation=tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        generate(config, conversation=tmp_path)
    (tmp_path / "q.json").write_text(json.dumps(OPEN_AI), encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a directory"):
        generate(config, str(tmp_path / "absent"), tmp_path / "q.json")

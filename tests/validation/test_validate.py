"""The verb validate: settings, machine and data in one list, and a report that DVC can keep."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ocrmem.config import RunConfig
from ocrmem.config.known_encoders import TINY_ENCODER
from ocrmem.conversations import Conversation
from ocrmem.errors import CheckFailed, ConfigError
from ocrmem.synthetic.synth import synth
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer
from ocrmem.validation import validate, validate_file
from ocrmem.validation.sample_counts import SampleCounter

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of the tiny preset with data and outputs under ``folder``."""
    values: dict[str, Any] = {
        "model": {
            "features": "concat",
            "vision_embedding_size": 128,
            "context_threshold": 16,
            "max_seq_length": 256,
            "device": "cpu",
        },
        "render": {"page_size": 256, "token_size": 32, "line_height": 32, "max_pages": 2},
        "data": {"path": str(folder / "data")},
        "paths": {"reports": str(folder)},
    }
    for name, value in changes.items():
        section, field = name.split("__")
        values[section][field] = value
    return values


def config_of(folder: Path, **changes: Any) -> RunConfig:
    return RunConfig.from_dict(settings(folder, **changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    synth(tmp_path / "data", style="tiny", count=30, eval_count=6, seed=0)
    return tmp_path


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "validation.json").read_text(encoding="utf-8"))


def say(*contents: str, **fields: Any) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
    return json.dumps({"messages": messages, **fields})


def test_good_settings_and_data_are_counted_and_written(folder: Path) -> None:
    result = validate(config_of(folder))
    assert result["conversations"] == {"train": 30, "eval": 6, "counterfactual": 6}
    assert result["samples"]["train"] >= 30
    assert 0 < result["samples_with_memory"]["train"] <= result["samples"]["train"]
    assert result["longest_history_tokens"] > 16
    assert result["unknown_token_share"] == 0
    assert report(folder) == {key: value for key, value in result.items() if key != "summary"}
    assert any("30 conversations" in line for line in result["summary"])
    before = (folder / "validation.json").read_bytes()
    validate(config_of(folder))
    assert (folder / "validation.json").read_bytes() == before


def test_the_threshold_decides_which_samples_get_memory(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "data").mkdir()
    (folder / "data" / "train.jsonl").write_text(say(*["ask ana", "ana tea"] * 8))
    (folder / "data" / "eval.jsonl").write_text(say(*["ask ben", "ben fig"] * 4))
    longest = validate(config_of(folder))["longest_history_tokens"]
    counts = [
        sum(validate(config_of(folder, model__context_threshold=t))["samples_with_memory"].values())
        for t in (0, longest // 2, longest - 1)
    ]
    assert counts[0] > counts[1] > counts[2] > 0
    with pytest.raises(CheckFailed, match=rf"is {longest}, and the longest of .* Lower it below {longest}"):
        validate(config_of(folder, model__context_threshold=longest, model__max_seq_length=480))


def test_memory_only_in_held_out_data_is_refused(folder: Path) -> None:
    (folder / "data" / "train.jsonl").write_text(say("ask ana", "ana tea"))
    with pytest.raises(CheckFailed, match="no training sample gets memory"):
        validate(config_of(folder))


def test_single_turn_data_is_refused(folder: Path) -> None:
    for name in ("train", "eval", "counterfactual"):
        (folder / "data" / f"{name}.jsonl").write_text(say(f"ask {name}", "tea"))
    with pytest.raises(CheckFailed, match=r"has 0 tokens: no sample would get memory.*Give conversations of several"):
        validate(config_of(folder))


def test_no_held_out_memory_is_a_note(folder: Path) -> None:
    (folder / "data" / "eval.jsonl").write_text(say("ask ana", "ana tea"))
    (folder / "data" / "counterfactual.jsonl").unlink()
    result = validate(config_of(folder))
    assert any("evaluate would have nothing to measure" in line for line in result["summary"])


def test_words_that_the_tiny_model_does_not_know_are_a_note(folder: Path) -> None:
    with (folder / "data" / "train.jsonl").open("a") as handle:
        handle.write(say("What a lovely morning", "Indeed it is") + "\n")
    result = validate(config_of(folder))
    assert result["unknown_token_share"] > 0
    assert any("unknown to the tokenizer of tiny" in line for line in result["notes"])


def test_an_answer_that_can_never_fit_is_reported_with_its_line(folder: Path) -> None:
    with (folder / "data" / "train.jsonl").open("a") as handle:
        handle.write(say("ask ana", "tea " * 300) + "\n")
    with pytest.raises(CheckFailed, match=r"train.jsonl:31: .*max_seq_length"):
        validate(config_of(folder))


def test_all_data_problems_are_listed_and_written(folder: Path) -> None:
    with (folder / "data" / "train.jsonl").open("a") as handle:
        handle.write("[]\n{\n")
    with pytest.raises(CheckFailed) as caught:
        validate(config_of(folder))
    assert caught.value.exit_code == 1
    assert [problem.place.rsplit("/", 1)[1] for problem in caught.value.problems] == [
        "train.jsonl:31",
        "train.jsonl:32",
    ]
    written = report(folder)
    assert written["ok"] is False
    assert written["problems"] == [problem.as_dict() for problem in caught.value.problems]


def test_with_skip_bad_the_good_lines_are_enough(folder: Path) -> None:
    with (folder / "data" / "train.jsonl").open("a") as handle:
        handle.write("[]\n{\n")
    result = validate(config_of(folder, data__skip_bad=True))
    assert result["rejected"] == 2
    assert any("2 bad lines will be left out" in line for line in result["summary"])


@pytest.mark.parametrize("skip_bad", [False, True])
def test_missing_data_is_reported(tmp_path: Path, skip_bad: bool) -> None:
    with pytest.raises(CheckFailed, match="data: is not there"):
        validate(config_of(tmp_path, data__skip_bad=skip_bad))


def with_cuda(monkeypatch: pytest.MonkeyPatch, *, capability: int | None) -> None:
    """A machine with two GPUs of a compute capability, or with none: what is not real here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (capability, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old GPU")


@pytest.mark.parametrize(
    ("device", "precision", "capability", "said"),
    [
        ("cuda", "float32", None, "model.device: is cuda, but this machine has no CUDA device"),
        ("auto", "float16", None, "model.precision: is float16, and this machine has only a CPU"),
        ("auto", "bfloat16", 7, "model.precision: is bfloat16, which an old GPU can only emulate"),
        ("auto", "bfloat16", 8, None),
        ("auto", "float16", 7, None),
        ("auto", "bfloat16", None, None),
        ("cpu", "float32", 8, None),
    ],
)
def test_what_the_machine_cannot_do_is_reported(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    precision: str,
    capability: int | None,
    said: str | None,
) -> None:
    with_cuda(monkeypatch, capability=capability)
    config = config_of(folder, model__device=device, model__precision=precision)
    if said is None:
        assert validate(config)["ok"]
        return
    with pytest.raises(ConfigError, match=said) as caught:
        validate(config)
    assert caught.value.exit_code == 2


def test_more_processes_than_gpus_is_a_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, capability=9)
    values = settings(folder, model__device="auto") | {"train": {"processes": 8}}
    result = validate(RunConfig.from_dict(values))
    assert "train.processes is 8, this machine has 2 GPUs" in result["notes"]


def test_without_torch_the_machine_is_not_checked_and_that_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    notes = validate(config_of(folder, model__device="auto"))["notes"]
    assert any("device and precision were not checked" in note for note in notes)


@pytest.fixture
def local_model(tmp_path: Path) -> Path:
    """A directory with a tokenizer and a config.json, as a downloaded base model has them."""
    directory = tmp_path / "base"
    build_tiny_tokenizer().save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "qwen3", "max_position_embeddings": 4096}))
    return directory


def real_settings(folder: Path, base: str) -> dict[str, Any]:
    values = settings(folder, model__features="sum", model__vision_embedding_size=1024)
    values["model"] |= {
        "base_model_name": base,
        "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
        "max_seq_length": 1024,
    }
    values["render"] = {"page_size": 1024, "token_size": 64, "line_height": 16, "max_pages": 3}
    return values


def test_a_local_base_model_counts_with_its_own_tokenizer(folder: Path, local_model: Path) -> None:
    result = validate(RunConfig.from_dict(real_settings(folder, str(local_model))))
    assert result["samples_with_memory"]["train"] > 0
    assert [note for note in result["notes"] if "revision" in note] == [
        "model.ocr_revision is not set: pin deepseek-ai/DeepSeek-OCR to a commit, so that a later run gets "
        "the same weights"
    ]


def test_a_tokenizer_that_does_not_load_is_reported_together_with_the_data(folder: Path) -> None:
    (folder / "data" / "more.jsonl").write_text("{")
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig.from_dict(real_settings(folder, "nobody/has-this-model")))
    reported = str(caught.value)
    assert "no tokenizer loads from 'nobody/has-this-model'" in reported
    assert "more.jsonl:1: is JSON spread over lines" in reported


def write_config(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_file_that_loads_is_validated(folder: Path) -> None:
    assert validate_file(write_config(folder, settings(folder)), ["model.context_threshold=8"])["ok"]


def test_faults_of_settings_and_data_come_in_one_list(folder: Path) -> None:
    with (folder / "data" / "eval.jsonl").open("a") as handle:
        handle.write("7\n")
    path = write_config(folder, settings(folder, model__features="mean", render__line_height=7))
    with pytest.raises(ConfigError) as caught:
        validate_file(path)
    assert caught.value.exit_code == 2
    reported = str(caught.value)
    for expected in ("model.features: is 'mean'", "render.line_height: is 7", "eval.jsonl:7: holds a number"):
        assert expected in reported
    assert len(report(folder)["problems"]) == len(caught.value.problems)


def test_an_unreadable_file_is_reported_without_looking_for_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "params.yaml").write_text("model: [")
    with pytest.raises(ConfigError) as caught:
        validate_file("params.yaml")
    assert len(caught.value.problems) == 1
    assert not (tmp_path / "validation.json").exists()


def test_the_ancestors_configuration_is_refused_for_both_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        validate_file(CONFIGS / "ocr-mem-2025-12.yaml")
    assert [problem.place.rsplit(" ", 1)[1] for problem in caught.value.problems] == [
        "model.context_threshold",
        "model.vision_embedding_size",
    ]


@pytest.mark.slow
def test_what_is_known_of_the_tiny_preset_is_what_it_is() -> None:
    from ocrmem.model.tiny.encoder import PAGE_SIZE, TOKEN_SIZE, tiny_encoder_config

    assert TINY_ENCODER.page_sizes == (PAGE_SIZE,)
    assert TINY_ENCODER.token_size == TOKEN_SIZE
    width = tiny_encoder_config().encoder_config.hidden_size
    assert TINY_ENCODER.sizes == {"sum": width, "concat": 2 * width}


def test_a_template_that_refuses_a_role_is_reported_with_the_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
        + tokenizer.chat_template.removeprefix("{% for message in messages %}").replace("message[", "m[")
    )
    monkeypatch.setattr("ocrmem.dataset.sequence.load_tokenizer", lambda _: tokenizer)
    messages = [
        {"role": role, "content": "tea"} for role in ("user", "assistant", "tool", "assistant", "user", "assistant")
    ]
    with (folder / "data" / "train.jsonl").open("a") as handle:
        handle.write(json.dumps({"messages": messages}) + "\n")
    with pytest.raises(CheckFailed, match=r"train.jsonl:31: chat template refuses .*no tools"):
        validate(config_of(folder))


def test_progress_is_shown_by_conversation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: list[float] = []
    monkeypatch.setattr("ocrmem.console.Bar.advance", lambda _, by=1: advanced.append(by))
    validate(config_of(folder))
    assert sum(advanced) == sum(file.stat().st_size for file in (folder / "data").iterdir())


def test_no_conversation_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 22 MB took 200 MB."""
    alive = []
    add = SampleCounter.add

    def count() -> int:
        return sum(isinstance(known, Conversation) for known in gc.get_objects())

    def counted(self: SampleCounter, conversation: Conversation) -> None:
        add(self, conversation)
        if self.conversations["train"] == 30:
            alive.append(count())

    monkeypatch.setattr(SampleCounter, "add", counted)
    gc.collect()
    others = count()  # constants of other tests in this process
    assert validate(config_of(folder))["ok"]
    assert alive
    assert max(alive) == others + 1


def test_fields_and_files_that_are_not_used_are_noted(folder: Path) -> None:
    (folder / "data" / "more.json").write_text("[]")
    (folder / "data" / "extra.jsonl").write_text(say("ask ana", "ana tea", title="x", tools=[]) + "\n")
    result = validate(config_of(folder))
    assert result["unused_fields"] == {"title": 1, "tools": 1}
    noted = "\n".join(result["notes"])
    assert 'how many conversations have them: "title" (1), "tools" (1)' in noted
    assert "that are not read: more.json" in noted


def test_a_report_that_cannot_be_written_is_reported(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(ConfigError, match=r"validation.json: cannot be written"):
        validate(config_of(folder, paths__reports=str(folder / "file")))

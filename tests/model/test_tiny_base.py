"""The embedded default's base: texts, training, gate, cache. A few steps each: benchmarks measure quality."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrmem.config import BaseSection, PathsSection, RunConfig
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.reading import RateCourse
from ocrmem.errors import TrainingError
from ocrmem.model.tiny import build, language_model
from ocrmem.model.tiny.build import build_tiny_base
from ocrmem.model.tiny.encoder import CHARACTERS, character_pages, pretrain_encoder, random_tiny_encoder
from ocrmem.model.tiny.language_model import Attempt, pretrain_language_model
from ocrmem.model.tiny.texts import IDS, Lessons, answered, exam, example
from ocrmem.synthetic.tiny import HELD_OUT, KEYS, draw_history
from ocrmem.synthetic.tokenizer import VOCABULARY, build_tiny_tokenizer


def few_steps(models: Path, **base: Any) -> RunConfig:
    settings = {"encoder_steps": 1, "lm_steps": 3, "text_recall": 0.0, "max_attempts": 1} | base
    return RunConfig(base=BaseSection(**settings), paths=PathsSection(models=str(models)))


def words(ids: list[int]) -> list[str]:
    return [VOCABULARY[i] for i in ids]


def test_turns_are_what_the_chat_template_writes() -> None:
    history = draw_history(random.Random(0), 4, 3)
    made = example(history, history.facts, page=False)
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": " ".join(line)} for i, line in enumerate(history.lines)]
    for key, value in history.facts:
        messages.append({"role": "user", "content": f"ask {key}"})
        messages.append({"role": "assistant", "content": f"{key} {value}"})
    tokenizer = build_tiny_tokenizer()
    assert made.ids == tokenizer.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize("page", [False, True])
def test_labels_and_lookups_point_at_answers(page: bool) -> None:
    history = draw_history(random.Random(1), 6, 4)
    first, *rest = history.facts
    made = example(answered(history, first), rest, page=page)
    supervised = [VOCABULARY[label] for label in made.labels if label >= 0]
    assert supervised == [word for pair in rest for word in (*pair, "<|im_end|>")]
    assert all(label in (-100, token) for label, token in zip(made.labels, made.ids, strict=True))
    for (key, value), (at, stated) in zip(rest, made.lookups, strict=True):
        assert words(made.ids)[at : at + 2] == [key, value]
        assert words(made.ids)[stated - 1 : stated + 1] == [key, value]
        assert stated < at


def test_the_page_form_is_one_token_a_patch() -> None:
    history = draw_history(random.Random(1), 2, 2)
    text = words(example(history, history.facts, page=True).ids)
    inside = text[text.index("<|vision_start|>") + 1 : text.index("<|vision_end|>")]
    assert inside == ["usr", *history.lines[0], "bot", *history.lines[1]]
    assert text[text.index("<|vision_end|>") + 1] == "ask"


def test_lessons_never_state_a_held_out_pair_and_exams_ask_for_nothing_else() -> None:
    held_out = {(IDS[key], IDS[value]) for key, value in HELD_OUT}
    lessons = Lessons(0)
    for level in range(Lessons.LAST + 1):
        lessons.level = level
        for _ in range(10):
            ids = lessons.batch(32).ids
            assert not {tuple(pair) for row in ids.tolist() for pair in pairwise(row)} & held_out
    labels = exam(0, 50, page=True).labels
    keys = [row[row >= 0].tolist() for row in labels]
    assert all((key, value) in held_out for key, value, _ in keys)
    assert len(KEYS) == 16


def test_pages_are_drawn_as_the_renderer_draws_them() -> None:
    from ocrmem.config import RenderSection
    from ocrmem.rendering import load_atlas, render_text

    by_token, pixels = character_pages(0).draw(1)
    wanted = by_token.reshape(1, 8, 32)  # [page, lines, columns]
    text = "\n".join("".join(CHARACTERS[i] for i in row) for row in wanted[0].tolist())
    settings = RenderSection(page_size=256, token_size=32, line_height=32)
    page = render_text(text.replace(" ", "\N{NO-BREAK SPACE}"), settings, load_atlas()).pages[0]
    mine, theirs = pixels[0], torch.from_numpy(page.pixels().copy())
    assert mine.shape == theirs.shape
    blank = (wanted[0] == 0).repeat_interleave(32, 0).repeat_interleave(8, 1)  # how blanks are drawn is theirs
    assert torch.equal(mine[:, ~blank], theirs[:, ~blank])


def test_the_rate_rises_holds_and_falls() -> None:
    shares = [RateCourse(risen=0.05, level_until=0.6, least=0.02).share(step, 100) for step in range(100)]
    assert shares[0] < 0.05
    assert shares[10] == shares[50] == 1
    assert shares[99] < 0.05


def test_the_encoder_is_the_seeds() -> None:
    first, again = (pretrain_encoder(3, 1)[0].state_dict() for _ in range(2))
    other = random_tiny_encoder(4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_build_loads_and_is_done_once(tmp_path: Path) -> None:
    config = few_steps(tmp_path / "models")
    report = build_tiny_base(config)
    assert report["cached"] is False
    assert report["language_model"]["attempts"][0]["steps"] >= 1
    assert set(report["language_model"]["text_recall"]) == {"turns", "page"}
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(config.paths.base_model)
    tokenizer = AutoTokenizer.from_pretrained(config.paths.base_model)
    assert model.config.vocab_size == len(tokenizer) == len(VOCABULARY)
    assert tokenizer.decode(tokenizer("ana tea")["input_ids"]) == "ana tea"
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert DeepEncoder.from_pretrained(config.paths.encoder, features="concat").feature_size == 128
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}
    assert build_tiny_base(config)["cached"] is True
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")} == before


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts builds of the language model; the encoder is a random one."""
    calls: list[int] = []
    train = build.pretrain_language_model

    def counting(seed: int, *args: Any, **kwargs: Any) -> Any:
        calls.append(seed)
        return train(seed, *args, **kwargs)

    def random_reader(seed: int, steps: int) -> tuple[DeepEncoder, float]:
        return random_tiny_encoder(seed), 1.0

    monkeypatch.setattr(build, "pretrain_language_model", counting)
    monkeypatch.setattr(build, "pretrain_encoder", random_reader)
    return calls


def test_other_settings_or_damaged_files_are_built_again(tmp_path: Path, counted: list[int]) -> None:
    build_tiny_base(few_steps(tmp_path))
    build_tiny_base(few_steps(tmp_path, seed=5))
    (tmp_path / "base" / "config.json").write_text("{}")
    build_tiny_base(few_steps(tmp_path, seed=5))
    (tmp_path / "base.json").write_text("[]")
    build_tiny_base(few_steps(tmp_path, seed=5))
    assert counted == [0, 5, 5, 5]


def test_an_interrupted_build_is_built_again(
    tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(build, "_save_language_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_tiny_base(few_steps(tmp_path))
    assert not (tmp_path / "base").exists()
    assert not (tmp_path / "base.json").exists()
    assert build_tiny_base(few_steps(tmp_path))["cached"] is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "base.json", "encoder"]


def test_an_unreached_gate_is_an_error_that_names_the_settings(tmp_path: Path, counted: list[int]) -> None:
    with pytest.raises(TrainingError, match=r"base\.text_recall.*2 attempts.*base\.lm_steps"):
        build_tiny_base(few_steps(tmp_path, text_recall=1.0, max_attempts=2))
    assert not (tmp_path / "base.json").exists()


def test_a_failed_seed_is_followed_by_another_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any) -> None:
        passed = self.attempt.seed == 1001
        self.attempt.text_recall = {"turns": 1.0, "page": 1.0 if passed else 0.2}

    monkeypatch.setattr(language_model._Training, "run", run)
    notes: list[str] = []
    monkeypatch.setattr(language_model, "note", notes.append)
    _, attempts = pretrain_language_model(1, 5, text_recall=0.98, max_attempts=3)
    assert [attempt.seed for attempt in attempts] == [1, 1001]
    assert "text recall 0.200" in notes[0]
    assert Attempt(0).worst == 0.0


def test_training_continues_while_steps_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    recalls = iter([0.1, 0.99])
    monkeypatch.setattr(language_model, "examine", lambda _: dict.fromkeys(("turns", "page"), next(recalls)))
    monkeypatch.setattr(language_model, "_COOL_STEPS", 1)
    monkeypatch.setattr(language_model, "_LEVEL_DONE", 0.0)
    monkeypatch.setattr(language_model, "_SURE", 0.0)
    notes: list[str] = []
    monkeypatch.setattr(language_model, "note", notes.append)
    model, attempts = pretrain_language_model(0, 20, text_recall=0.98, max_attempts=1)
    assert notes == ["text recall 0.100 is under 0.98; continuing"]
    assert attempts[0].text_recall["page"] == 0.99
    assert not model.training


def test_blur_touches_pages_of_the_chosen_texts_alone() -> None:
    training = language_model._Training(Attempt(0), 1, 0.0, lambda _: None)
    batch = exam(0, 2, page=True)
    which = torch.tensor([True, False])
    plain = training.model.get_input_embeddings()(batch.ids)
    changed = (training._blur(plain, batch.ids, which) != plain).any(-1)
    text = words(batch.ids[0].tolist())
    first, last = text.index("<|vision_start|>") + 1, text.index("<|vision_end|>")
    assert changed[0, first:last].all()
    assert not changed[0, :first].any()
    assert not changed[0, last:].any()
    assert not changed[1].any()

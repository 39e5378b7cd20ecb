"""The verb prose: the base model's own texts, sampled with a seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.models import small_base, small_workspace

from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.errors import ModelError
from ocrmem.generation.prose import Writer, _draw, prose
from ocrmem.synthetic.prose import Request, Written
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer


@pytest.fixture(scope="module")
def writer() -> Writer:
    tokenizer = build_tiny_tokenizer()
    return Writer(small_base(len(tokenizer)).eval(), SequenceBuilder(tokenizer, 256))


def test_texts_begin_as_asked_and_differ_with_the_seed_alone(writer: Writer) -> None:
    requests = [Request("the", "the "), Request("the the the", "")]
    first, second = writer(requests, 8, "a")
    assert first.text.startswith("the")
    state = torch.get_rng_state()
    assert writer(requests, 8, "a") == [first, second] != writer(requests, 8, "b")
    assert torch.equal(torch.get_rng_state(), state)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(0)
    logits = torch.full((4000, 60), -9.0)
    logits[:, 7], logits[:, 40] = 2.0, 1.0
    drawn = _draw(torch.empty(0), logits).argmax(-1)
    share = float((drawn == 7).float().mean())
    assert share == pytest.approx(torch.tensor([2.0, 1.0]).div(0.9).softmax(0)[0].item(), abs=0.03)
    assert set(drawn.tolist()) <= {7, 40}


def test_a_model_of_a_toy_vocabulary_is_refused(tmp_path: Path) -> None:
    config = small_workspace(tmp_path, features=False)
    with pytest.raises(ModelError, match="Name a chat model that writes English"):
        prose(config, tmp_path / "data", count=1, words=10)
    assert not (tmp_path / "data" / "prose-0.jsonl").exists()


def test_what_was_written_becomes_a_file_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_workspace(tmp_path, features=False)
    text = "Paid €86.61 to Ann Lee on 4 May. The wifi password is QRT129, and the gate code is 4411."
    monkeypatch.setattr(Writer, "__call__", lambda self, requests, words, seed: [Written(text, True)] * len(requests))
    result = prose(config, tmp_path / "data", count=3, seed=4, words=10)
    lines = (tmp_path / "data" / "prose-4.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["messages"][1]["content"] for line in lines] == [text] * 3
    assert (result["conversations"], result["characters"]) == (3, 3 * len(text))
    assert (tmp_path / "data" / "train.jsonl").exists()

"""The verb on a small workspace with random models: what it writes, that it repeats, what it refuses."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.evaluated import workspace_with_adapter

from ocrmem.config import RunConfig
from ocrmem.conversations import Message
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.encoder.loading import load_encoder
from ocrmem.errors import DataError, MissingInputError, ModelError
from ocrmem.evaluation.baselines import of_other_conversations
from ocrmem.evaluation.evaluate import _Evaluation, _fresh_proj, evaluate
from ocrmem.evaluation.html_report import choose_examples, training_curve, write_report
from ocrmem.evaluation.result import VARIANTS
from ocrmem.evaluation.scoring import Case, Scored, Scorer
from ocrmem.evaluation.transcription import characters_in_common, measure_transcription
from ocrmem.files import write_text
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.modeling import MEMModel
from ocrmem.model.projector import Projector
from ocrmem.objectives import Material, Transcribe
from ocrmem.synthetic.notes import REPHRASED
from ocrmem.tokens import load_tokenizer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    stages = [{"objective": "answer", "share": 1.0, "mix": {"answer": 1, "transcribe": 1}}]
    return workspace_with_adapter(tmp_path_factory.mktemp("workspace"), train={"stages": stages})


@pytest.fixture(scope="module")
def result(config: RunConfig) -> dict[str, Any]:
    write_text(config.paths.report("plots/train.csv"), "step,loss,proj_grad_norm\n1,3.0,1\n2,1.5,1\n")
    return evaluate(config)


@pytest.fixture
def own_reports(config: RunConfig, tmp_path: Path) -> RunConfig:
    """The workspace with reports of its own: the shared ones stay as they are."""
    return config.model_copy(update={"paths": config.paths.model_copy(update={"reports": str(tmp_path)})})


def with_evaluate(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=changes)})


def without_stages(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"stages": ()})})


def test_evaluation_json_has_what_callers_rely_on(config: RunConfig, result: dict[str, Any]) -> None:
    written = json.loads(config.paths.report("evaluation.json").read_text(encoding="utf-8"))
    assert VARIANTS.keys() - written.keys() == {"base_text", "random_answer"}  # of LoRA; of a vocabulary with letters
    for name in VARIANTS.keys() & written.keys():
        assert math.isfinite(written[name]["loss"])
        assert 0 <= written[name]["recall"] <= 1
    assert written["compression_ratio"] > 0
    assert set(written["latency"]["memory"]) == {"render", "encode", "prefill", "generate", "total"}
    assert set(written["latency"]["full_text"]) == {"prefill", "generate", "total"}
    assert written["samples"]["evaluated"] == written["memory"]["samples"] > 2
    assert written["counterfactual"]["samples"] == written["samples"]["counterfactual"] > 0
    assert written["transcription"]["samples"] == written["memory"]["samples"]
    share = f"{written['transcription']['memory']:.3f} of the characters"
    assert any(line.startswith("Asked for the text of") and share in line for line in result["summary"])
    del written["sha256"]
    assert {**written, "report": result["report"], "summary": result["summary"]} == result


def test_equal_tokens_means_no_more_than_memory_reads(result: dict[str, Any]) -> None:
    memory = result["memory"]["sequence_tokens"]
    for name in ("no_memory", "truncated", "mean_pooled", "untrained"):
        assert result[name]["sequence_tokens"] <= memory
    # Shuffling only deals the memories out differently.
    assert result["shuffled"]["sequence_tokens"] == memory


def test_variants_really_differ(result: dict[str, Any]) -> None:
    names = ("memory", "no_memory", "shuffled", "truncated", "mean_pooled", "full_text", "untrained")
    losses = [result[name]["loss"] for name in (*names, "random_encoder")]
    # An untrained adapter is the control's own equal: everything else reads something else.
    assert losses[0] == result["untrained"]["loss"]
    assert len(set(losses)) == len(losses) - 1


def test_untrained_proj_has_nothing_of_the_trained_one_and_begins_as_training_does() -> None:
    embedding, proj = torch.nn.Embedding(5, 6), Projector(4, 6, norm=True, output_norm=True)
    with torch.no_grad():
        for weight in proj.parameters():
            weight.fill_(3.0)
    model: Any = SimpleNamespace(proj=proj, device="cpu", get_input_embeddings=lambda: embedding)
    with _fresh_proj(model, seed=0):
        assert not any((weight == 3).any() for weight in model.proj.parameters())
        scale = embedding.weight.detach().square().mean().sqrt()
        torch.testing.assert_close(model.proj.output_norm.weight.detach(), scale.expand(6))
    assert model.proj is proj


def test_a_second_run_gives_the_same_but_for_the_latency(own_reports: RunConfig, result: dict[str, Any]) -> None:
    again = evaluate(own_reports)
    for key in set(result) - {"latency", "report", "summary"}:
        assert again[key] == result[key], key


def test_losses_are_those_of_forward_with_labels(config: RunConfig, result: dict[str, Any]) -> None:
    dataset = MemoryDataset.open(config.paths.dataset)
    model = MEMModel.from_pretrained(config.paths.adapter, run_config=config).eval()
    builder = SequenceBuilder(load_tokenizer(config), config.model.max_seq_length)
    collate = MemoryCollator(builder, dataset, FeatureStore.open(config.paths.features))
    samples = [sample for sample in dataset.samples("eval") if sample.has_memory]
    with torch.no_grad():
        loss = float(model(**collate(samples)).loss)
    assert result["memory"]["loss"] == pytest.approx(loss, abs=1e-5)


def test_drawn_features_are_the_stored_ones(config: RunConfig) -> None:
    run = _Evaluation(config)
    for sample in run.samples:
        drawn = run.drawn_features(sample, load_encoder(config))
        assert torch.allclose(drawn, run.features(sample), atol=1e-5)


def test_recall_counts_exact_answers(own_reports: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_but_first(self: Scorer, cases: list[Case]) -> list[str]:
        return [case.answer if not case.sample_id.startswith("e0") else "fox" for case in cases]

    monkeypatch.setattr(Scorer, "answers", all_but_first)
    found = evaluate(own_reports)
    dataset = MemoryDataset.open(own_reports.paths.dataset)
    for split, name in (("eval", "memory"), ("counterfactual", "counterfactual")):
        samples = [sample for sample in dataset.samples(split) if sample.has_memory]
        right = sum(not sample.id.startswith("e0") for sample in samples)
        assert found[name]["correct"] == right
        assert found[name]["recall"] == pytest.approx(right / len(samples), abs=1e-6)


def test_an_answer_in_a_sentence_is_said_and_not_exact(own_reports: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scorer, "answers", lambda self, cases: [f"It is {case.answer}!" for case in cases])
    found = evaluate(with_evaluate(own_reports, max_samples=2, examples=1))
    assert (found["memory"]["recall"], found["memory"]["said"]) == (0.0, 1.0)
    assert found["memory"]["said_interval"][0] > 0.3
    assert "said" in read_html(Path(found["report"]))[0].text


def test_recall_is_split_by_phrasing_where_conversations_are_rephrased(
    own_reports: RunConfig, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "phrasings" not in result
    monkeypatch.setattr(MemoryDataset, "samples", partialmethod(rephrased, MemoryDataset.samples))
    monkeypatch.setattr(
        Scorer, "answers", lambda self, cases: [c.answer if REPHRASED in c.sample_id else "fox" for c in cases]
    )
    found = evaluate(without_stages(own_reports))
    trained, other = found["phrasings"]["trained"], found["phrasings"]["rephrased"]
    assert trained["samples"] + other["samples"] == found["memory"]["samples"]
    assert (trained["recall"], other["recall"]) == (0.0, 1.0)
    assert f"asked in words that training never used: 1.000 exact, 1.000 said (of {other['samples']})" in "\n".join(
        found["summary"]
    )
    assert "in words that training never used: 100\u00a0%" in read_html(Path(found["report"]))[0].text


def rephrased(self: MemoryDataset, read: Callable[[MemoryDataset, str], list[Sample]], split: str) -> list[Sample]:
    """The samples, those of every conversation with an odd number under the id of one that is rephrased."""
    renamed = []
    for sample in read(self, split):
        if split == "eval" and sample.conversation_id[-1] in "13579":
            name = sample.conversation_id + REPHRASED
            sample = replace(sample, id=f"{name}#{sample.turn}", conversation_id=name)
        renamed.append(sample)
    return renamed


def test_counterfactual_wants_the_changed_value(config: RunConfig) -> None:
    run = _Evaluation(config)
    original = {sample.id: sample.answer for sample in run.samples}
    for sample in run.counterfactual:
        conversation, _, turn = sample.id.partition("#")
        counterpart = f"{conversation.removesuffix('-cf')}#{turn}"
        if counterpart in original:
            assert sample.answer != original[counterpart]
        assert any(sample.answer in message.content for message in sample.history)


def test_a_model_that_reads_its_pages_writes_out_all_of_the_right_ones(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _Evaluation(config)
    material = Material(config, run.maker.builder, run.dataset, run.store, run.held_out)
    asked = [Transcribe(material).reading(sample) for sample in run.samples]
    written = {run.features(sample).numpy().tobytes(): sample.answer for sample in asked}

    def read(self: Scorer, cases: list[Case]) -> list[str]:
        assert self.max_new_tokens >= max(case.supervised.answer_tokens for case in cases)
        return [written.get(case.features.numpy().tobytes(), "") for case in cases]  # type: ignore[union-attr]

    monkeypatch.setattr(Scorer, "answers", read)
    others = [run.samples[place] for place in of_other_conversations(run.samples)]
    found = measure_transcription(material, run.samples, others, run.features, run.maker, run.scorer)
    assert found["memory"] == 1.0 > found["shuffled"]
    assert found["characters"] == sum(len(" ".join(sample.answer.split())) for sample in asked)


@pytest.mark.parametrize(
    ("said", "text", "right"),
    [
        ("ana tea", "ana tea", 7),
        (" ana\n tea ", "ana tea", 7),
        ("ana", "ana tea", 3),
        ("", "ana tea", 0),
        ("tea ana", "ana tea", 3),  # in their order: one word of the two
        ("ana tea and much that is not there", "ana tea", 7),
    ],
)
def test_characters_count_in_their_order(said: str, text: str, right: int) -> None:
    assert characters_in_common(said, text) == right


def test_fewer_samples_are_spread_over_all(own_reports: RunConfig) -> None:
    found = evaluate(without_stages(with_evaluate(own_reports, max_samples=2, examples=1)))
    assert "transcription" not in found  # what was never trained is not asked for
    assert found["samples"]["evaluated"] == 2
    assert found["samples"]["conversations"] == 2
    assert found["samples"]["with_memory"] > 2


def test_answers_too_long_to_generate_are_told(own_reports: RunConfig) -> None:
    found = evaluate(with_evaluate(own_reports, max_new_tokens=1, max_samples=2))
    assert found["samples"]["answers_over_max_new_tokens"] == 2
    assert any("longer than evaluate.max_new_tokens" in line for line in found["summary"])


@pytest.mark.parametrize(("missing", "verb"), [("adapter", "train"), ("features", "encode"), ("dataset", "render")])
def test_a_missing_input_names_its_verb(config: RunConfig, tmp_path: Path, missing: str, verb: str) -> None:
    paths = config.paths.model_copy(update={missing: str(tmp_path / "none"), "reports": str(tmp_path)})
    with pytest.raises(MissingInputError, match=f"ocrmem {verb}"):
        evaluate(config.model_copy(update={"paths": paths}))
    assert not (tmp_path / "evaluation.json").exists()


def test_an_adapter_for_other_pages_is_refused(own_reports: RunConfig) -> None:
    render = own_reports.render.model_copy(update={"token_size": 64})
    with pytest.raises(ModelError, match="token_size"):
        evaluate(own_reports.model_copy(update={"render": render}))


def test_without_held_out_memory_there_is_nothing_to_evaluate(
    own_reports: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryDataset, "samples", lambda self, split: [])
    with pytest.raises(DataError, match="none of the 0 held-out samples has memory"):
        evaluate(own_reports)


class Outside(HTMLParser):
    """Collects every address that a page refers to, its tags and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read_html(path: Path) -> tuple[Outside, str]:
    html = path.read_text(encoding="utf-8")
    parser = Outside()
    parser.feed(html)
    return parser, html


def test_the_report_needs_no_other_file(config: RunConfig, result: dict[str, Any]) -> None:
    parser, html = read_html(Path(result["report"]))
    assert parser.addresses
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert not parser.tags & {"script", "link", "iframe", "object", "embed"}
    assert not re.search(r"url\(|@import|https?://", html)
    for name in result.keys() & VARIANTS:
        assert name in parser.text
    assert f"{result['memory']['loss']:.4f}" in parser.text
    assert f"{result['transcription']['characters']} characters" in parser.text
    assert "Training loss" in parser.text


HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(1)>\" onmouseover='x' {{ 7*7 }}"


def test_hostile_text_stays_text(config: RunConfig, result: dict[str, Any], tmp_path: Path) -> None:
    dataset = MemoryDataset.open(config.paths.dataset)
    real = next(sample for sample in dataset.samples("eval") if sample.has_memory)
    sample = replace(
        real,
        id=HOSTILE,
        conversation_id=HOSTILE,
        answer=HOSTILE,
        history=(Message("user", HOSTILE),),
        prompt=(Message("user", HOSTILE),),
    )
    said = [Scored(HOSTILE, 1.0, 1, HOSTILE, False, 3, False)]
    path = tmp_path / "evaluation.html"
    write_report(path, {**result, "base_model": HOSTILE}, {"memory": said}, [sample], dataset, config)
    parser, html = read_html(path)
    assert "script" not in parser.tags
    assert "<img src=x" not in html
    assert parser.text.count(HOSTILE) >= 5
    assert all(address.startswith("data:") for address in parser.addresses)


def test_a_report_without_training_and_counterfactual_is_whole(
    config: RunConfig, result: dict[str, Any], tmp_path: Path
) -> None:
    dataset = MemoryDataset.open(config.paths.dataset)
    samples = [sample for sample in dataset.samples("eval") if sample.has_memory]
    less = {key: value for key, value in result.items() if key not in ("counterfactual", "scrambled", "transcription")}
    elsewhere = config.model_copy(update={"paths": config.paths.model_copy(update={"reports": str(tmp_path)})})
    said = [Scored(sample.id, 1.0, 1, "", True, 3, True) for sample in samples]
    write_report(tmp_path / "evaluation.html", less, {"memory": said}, samples, dataset, elsewhere)
    parser, _ = read_html(tmp_path / "evaluation.html")
    assert "Training loss" not in parser.text
    assert "counterfactual" not in parser.text
    assert "write out" not in parser.text
    assert "(nothing)" in parser.text


def test_wrong_answers_are_shown_too(config: RunConfig) -> None:
    dataset = MemoryDataset.open(config.paths.dataset)
    samples = [sample for sample in dataset.samples("eval") if sample.has_memory][:6]
    said = [Scored(sample.id, 1.0, 1, "", index != 4, 3, index != 4) for index, sample in enumerate(samples)]
    chosen = choose_examples(samples, said, 3)
    assert chosen[0] == samples[4]
    assert len({sample.id for sample in chosen}) == 3
    all_wrong = [replace(one, right=False) for one in said]
    assert len(choose_examples(samples, all_wrong, 3)) == 3


def test_no_curve_is_no_error(tmp_path: Path) -> None:
    assert training_curve(tmp_path / "none.csv") == []


def test_a_base_model_that_was_swapped_is_refused(config: RunConfig, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(config.paths.models, models)
    other = MEMModel.from_run_config(config, with_encoder=False).base_llm_model
    with torch.no_grad():
        other.get_input_embeddings().weight.add_(1.0)
    other.save_pretrained(models / "base")
    paths = config.paths.model_copy(update={"models": str(models), "reports": str(tmp_path)})
    with pytest.raises(ModelError, match="base_fingerprint"):
        evaluate(config.model_copy(update={"paths": paths}))

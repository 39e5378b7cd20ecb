"""What each objective's batches hold, and what their losses compare."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import small_workspace

from ocrmem.config import RunConfig
from ocrmem.conversations import Message
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.errors import DataError, TrainingError
from ocrmem.facts import IGNORED
from ocrmem.model.lora import add_lora
from ocrmem.model.modeling import BatchError, MEMModel
from ocrmem.objectives import Material, Objective, make_objectives
from ocrmem.rendering import transcript


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Words of three letters and labels of four columns, so that a vision token of four columns has a word."""
    labels = {"system": "sys ", "user": "usr ", "assistant": "bot ", "tool": "tol "}
    render = {"labels": labels, "page_size": 256, "max_pages": 2}
    return small_workspace(tmp_path_factory.mktemp("objectives"), render=render)


@pytest.fixture
def material(config: RunConfig) -> Material:
    return material_of(config)


def material_of(run: RunConfig, **changes: Any) -> Material:
    dataset = MemoryDataset.open(Path(run.paths.dataset))
    features = FeatureStore.open(Path(run.paths.features))
    made = Material(run, SequenceBuilder.of(run), dataset, features, dataset.samples("train"))
    return replace(made, **changes)


def objective(name: str, material: Material) -> Objective:
    return make_objectives([name], material)[name]


def first(one: Objective, count: int = 3) -> list[Sample]:
    return [one.material.samples[int(index)] for index in one.eligible()[:count]]


def words(material: Material, ids: Any) -> list[str]:
    return material.builder.tokenizer.convert_ids_to_tokens([int(number) for number in ids])


def test_align_has_the_words_under_each_vision_token_in_the_order_of_the_memory(material: Material) -> None:
    align = objective("align", material)
    (sample,) = first(align, 1)
    batch = align([sample])
    text = transcript(sample.history, material.config.render.labels)
    assert words(material, batch["text_ids"]) == text.replace("\n", " \n ").split(" ")[:-1]
    groups = [words(material, part) for part in batch["text_ids"].split(batch["text_lengths"].tolist())]
    assert all([word for word in group if word != "\n"][1:] == [] for group in groups)
    stored = material.features.gather(list(sample.pages), [material.dataset.kept(page) for page in sample.pages])  # type: ignore[union-attr]
    assert torch.equal(batch["memory_features"], stored)  # every token with ink has a word


def test_align_is_zero_where_proj_gives_the_mean_embedding_and_one_where_it_gives_zeros(
    config: RunConfig, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, align = MEMModel.from_run_config(config, with_encoder=False), objective("align", material)
    align.prepare(model)
    batch = align(first(align))
    embedding = model.get_input_embeddings().weight
    groups = batch["text_ids"].split(batch["text_lengths"].tolist())
    means = torch.stack([embedding[group].mean(0) for group in groups])
    monkeypatch.setattr(model.proj, "forward", lambda features: means)
    assert float(align.loss(model, batch, None)) == pytest.approx(0, abs=1e-9)
    monkeypatch.setattr(model.proj, "forward", lambda features: torch.zeros_like(means))
    expected = means.square().mean() / embedding.square().mean()
    assert float(align.loss(model, batch, None)) == pytest.approx(float(expected), rel=1e-5)


def test_align_runs_no_language_model(config: RunConfig, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    model, align = MEMModel.from_run_config(config, with_encoder=False), objective("align", material)
    monkeypatch.setattr(type(model.base_llm_model.base_model), "forward", None)
    align.loss(model, align(first(align)), None).backward()
    assert all(parameter.grad is not None for parameter in model.proj.parameters())


def test_align_without_any_text_has_proj_in_its_graph(config: RunConfig) -> None:
    model = MEMModel.from_run_config(config, with_encoder=False)
    nothing = torch.zeros(0, dtype=torch.long)
    features = torch.zeros(0, config.model.vision_embedding_size)
    model(memory_features=features, text_ids=nothing, text_lengths=nothing).loss.backward()
    assert all(parameter.grad is not None for parameter in model.proj.parameters())


def test_lengths_that_do_not_fit_the_features_are_refused(config: RunConfig, material: Material) -> None:
    model, align = MEMModel.from_run_config(config, with_encoder=False), objective("align", material)
    batch = align(first(align))
    with pytest.raises(BatchError, match="do not fit the memory features"):
        model(**batch | {"text_ids": batch["text_ids"][1:]})


def supervised(material: Material, batch: dict[str, torch.Tensor], row: int) -> list[str]:
    labels = batch["labels"][row]
    return words(material, labels[labels != IGNORED])


def test_transcribe_asks_for_all_of_the_text_behind_all_of_the_memory(material: Material) -> None:
    transcribe = objective("transcribe", material)
    samples = first(transcribe)
    batch = transcribe(samples)
    for row, sample in enumerate(samples):
        text = transcript(sample.history, material.config.render.labels)
        expected = text.replace("\n", " \n ").split(" ")[:-1]
        closing = words(material, material.builder.closing_ids)
        assert supervised(material, batch, row) == [word for word in expected if word] + closing
    assert len(batch["memory_features"]) == sum(sample.memory_tokens for sample in samples)
    assert transcribe.items(batch) == sum(
        len(material.builder.encode_content(transcript(sample.history, material.config.render.labels)))
        + len(material.builder.closing_ids)
        for sample in samples
    )


def test_the_instruction_stands_in_the_base_models_chat_template(material: Material) -> None:
    train = material.config.train.model_copy(update={"transcribe_instruction": "ask kim"})
    own = replace(material, config=material.config.model_copy(update={"train": train}))
    transcribe = objective("transcribe", own)
    (sample,) = first(transcribe, 1)
    asked = transcribe.reading(replace(sample, prompt=(Message("system", "was pig"), *sample.prompt)))  # type: ignore[attr-defined]
    assert [(m.role, m.content) for m in asked.prompt] == [("system", "was pig"), ("user", "ask kim")]


def long_sample(material: Material) -> Sample:
    return max((s for s in material.samples if s.has_memory), key=lambda sample: len(sample.pages))


def limited(material: Material, tokens: int) -> Material:
    builder = SequenceBuilder(material.builder.tokenizer, tokens, family=material.config.model.family)
    return replace(material, builder=builder)


@pytest.mark.parametrize(
    ("name", "longest"),
    [("transcribe", 60), ("transcribe", 90), ("transcribe", 256), ("continue", 80), ("continue", 256)],
)
def test_a_text_that_is_too_long_is_cut_at_a_page_or_in_the_last_one_behind_a_word(
    tmp_path_factory: pytest.TempPathFactory, name: str, longest: int
) -> None:
    material = limited(paged(tmp_path_factory), longest)
    one = objective(name, material)
    sample = long_sample(material)
    assert len(sample.pages) > 2
    asked = one.reading(sample)  # type: ignore[attr-defined]
    batch = one([sample])
    assert batch["input_ids"].shape[1] <= longest
    texts = one.texts.pages(sample)  # type: ignore[attr-defined]
    last = len(sample.pages) - (name == "continue")
    kept = len(asked.pages)
    assert asked.pages == sample.pages[last - kept : last]
    whole = texts[-1] if name == "continue" else "".join(texts[last - kept :])
    assert whole.startswith(asked.answer)
    assert asked.answer == whole or (kept == 1 and asked.answer.endswith(" "))
    if longest == 256:
        assert asked.answer == whole


_PAGED: dict[str, RunConfig] = {}


def paged(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Conversations whose histories take several pages."""
    if not _PAGED:
        import json

        from ocrmem.dataset.build import build_dataset
        from ocrmem.encoder.encode import encode_dataset

        root = tmp_path_factory.mktemp("paged")
        run = small_workspace(root, features=False, render={"max_pages": 3})
        turns = [
            {"role": "user" if at % 2 == 0 else "assistant", "content": "was kim egg ned pig ask fay saw pen"}
            for at in range(12)
        ]
        closing = [{"role": "user", "content": "ask kim"}, {"role": "assistant", "content": "kim egg"}]
        lines = [json.dumps({"id": f"c{n}", "messages": [*turns, *closing]}) for n in range(3)]
        for file in Path(run.data.path).glob("*.jsonl"):
            file.unlink()
        (Path(run.data.path) / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        build_dataset(run)
        encode_dataset(run)
        _PAGED["config"] = run
    return material_of(_PAGED["config"])


def test_continue_holds_the_last_page_out_of_the_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    material = paged(tmp_path_factory)
    one = objective("continue", material)
    counts = material.samples.page_counts()
    assert one.eligible().tolist() == np.flatnonzero(counts > 1).tolist()
    sample = long_sample(material)
    batch = one([sample])
    before = sum(int(material.dataset.kept(page).sum()) for page in sample.pages[:-1])
    assert len(batch["memory_features"]) == before < sample.memory_tokens


def test_pages_that_are_drawn_otherwise_now_are_not_guessed_at(material: Material) -> None:
    transcribe = objective("transcribe", material)
    (sample,) = first(transcribe, 1)
    other = replace(sample, history=(Message("user", "ask kim"), *sample.history))
    for name in ("transcribe", "align"):
        with pytest.raises(DataError, match="no longer drawn as the dataset's pages were"):
            objective(name, material)([other])


@pytest.mark.parametrize("name", ["align", "transcribe", "answer", "distil"])
def test_objectives_reach_worker_processes(material: Material, name: str) -> None:
    one = objective(name, material)
    batch, copied = one(first(one)), pickle.loads(pickle.dumps(one))(first(one))
    assert batch.keys() == copied.keys()
    assert all(torch.equal(batch[key], copied[key]) for key in batch if key != "teacher_keys")


def teacher_and_student(config: RunConfig, tmp_path: Path, **section: Any) -> tuple[MEMModel, Any, Any]:
    """A model, the objective distil, and a batch of it."""
    train = config.train.model_copy(update=section)
    material = material_of(config, config=config.model_copy(update={"train": train}), teacher=tmp_path / "teacher")
    model, distil = MEMModel.from_run_config(config, with_encoder=False), objective("distil", material)
    distil.prepare(model)
    return model, distil, distil(first(distil))


def test_distil_is_the_divergence_from_the_model_that_reads_the_text(config: RunConfig, tmp_path: Path) -> None:
    weights = {"distil_kl_weight": 1.0, "distil_nll_weight": 0.0, "distil_top_k": 1000}  # the whole vocabulary
    model, distil, batch = teacher_and_student(config, tmp_path, **weights)
    loss = distil.loss(model, dict(batch), None)
    read = {name: batch[f"teacher_{name}"] for name in ("input_ids", "attention_mask", "labels")}
    teacher = model(**read, keep_logits=True).logits.log_softmax(-1)
    student = model(**distil.inputs(batch), keep_logits=True).logits.log_softmax(-1)
    expected = torch.nn.functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert (read["input_ids"] == model.config.placeholder_token_id).sum() == 0


def test_the_teacher_is_the_base_model_without_lora(config: RunConfig, tmp_path: Path) -> None:
    model, distil, batch = teacher_and_student(config, tmp_path)
    before = distil._ask(model, batch)
    with torch.no_grad():
        said = model(**distil.inputs(batch)).loss
        add_lora(model.base_llm_model, rank=2, alpha=4.0, targets=["q_proj"])
        for weight in model.lora_weights().values():
            weight.add_(1.0)
        assert model(**distil.inputs(batch)).loss != said
    for was, now in zip(before, distil._ask(model, batch), strict=True):
        assert np.array_equal(was.ids, now.ids)
        assert np.array_equal(was.log_probs, now.log_probs)


def test_distil_with_few_tokens_is_less_and_zero_for_the_teacher_itself(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = {"distil_kl_weight": 1.0, "distil_nll_weight": 0.0}
    few, all_of_it = (
        float(
            (made := teacher_and_student(config, tmp_path / str(k), distil_top_k=k, **only))[1].loss(
                made[0], made[2], 1
            )
        )
        for k in (4, 1000)
    )
    assert 0 < few < all_of_it
    model, distil, batch = teacher_and_student(config, tmp_path, **only)
    read = {name.removeprefix("teacher_"): value for name, value in batch.items() if name.startswith("teacher_")}
    read.pop("keys")
    monkeypatch.setattr(distil, "inputs", lambda batch: read)
    assert float(distil.loss(model, batch, None)) == pytest.approx(0, abs=1e-5)


def test_distil_weighs_both_parts(config: RunConfig, tmp_path: Path) -> None:
    parts = {}
    for kl, nll in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
        model, distil, batch = teacher_and_student(config, tmp_path, distil_kl_weight=kl, distil_nll_weight=nll)
        parts[kl, nll] = float(distil.loss(model, batch, None))
    assert parts[2.0, 3.0] == pytest.approx(2 * parts[1.0, 0.0] + 3 * parts[0.0, 1.0], rel=1e-5)
    answer = objective("answer", material_of(config))
    assert parts[0.0, 1.0] == pytest.approx(float(answer.loss(model, answer(first(distil)), None)), rel=1e-6)


@pytest.mark.parametrize("name", ["transcribe", "answer", "distil"])
def test_packed_samples_have_the_loss_of_padded_ones(config: RunConfig, tmp_path: Path, name: str) -> None:
    losses = []
    for packing in (False, True):
        run = config.model_copy(update={"train": config.train.model_copy(update={"packing": packing})})
        model = MEMModel.from_run_config(run, with_encoder=False)
        one = objective(name, material_of(run, teacher=tmp_path / str(packing)))
        one.prepare(model)
        batch = one(first(one))
        assert ("attention_mask" in batch) is not packing
        losses.append(one.loss(model, batch, one.items(batch)).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_teacher_is_asked_once_by_any_number_of_processes(config: RunConfig, tmp_path: Path) -> None:
    model, distil, batch = teacher_and_student(config, tmp_path)
    once = float(distil.loss(model, batch, None))
    asked: list[int] = []
    for process in (0, 1):
        again = objective("distil", replace(distil.material, process=process))
        again.prepare(model)
        again._ask = lambda *rest: asked.append(1)  # type: ignore[attr-defined]
        assert float(again.loss(model, again(first(again)), None)) == once
    assert asked == []
    other = objective(
        "distil", replace(distil.material, any_process=lambda missing: True)
    )  # another process misses some
    other.prepare(model)
    assert float(other.loss(model, other(first(other)), None)) == once


def test_a_store_that_is_none_is_named(config: RunConfig, tmp_path: Path) -> None:
    model, distil, batch = teacher_and_student(config, tmp_path)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "logits-3.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(TrainingError, match=r"logits-3.sqlite: holds no teacher's logits .* Delete the file"):
        distil.loss(model, batch, None)

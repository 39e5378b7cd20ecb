"""From a dataset on disk to forward's arguments: memory in order, padding, labels on the answer alone."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import small_workspace

from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.errors import DataError
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.modeling import MEMModel
from ocrmem.tokens import load_tokenizer


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return small_workspace(tmp_path_factory.mktemp("batch"))


@pytest.fixture(scope="module")
def dataset(workspace):
    return MemoryDataset.open(Path(workspace.paths.dataset))


@pytest.fixture(scope="module")
def store(workspace):
    return FeatureStore.open(Path(workspace.paths.features))


@pytest.fixture(scope="module")
def builder(workspace):
    return SequenceBuilder(load_tokenizer(workspace), workspace.model.max_seq_length)


@pytest.fixture(scope="module")
def mixed(dataset):
    """Samples with and without memory, in turn."""
    samples = dataset.samples("train")
    with_memory = [s for s in samples if s.has_memory][:3]
    without = [s for s in samples if not s.has_memory][:2]
    assert len(with_memory) == 3
    assert len(without) == 2, "the workspace's threshold leaves no history as text"
    return [with_memory[0], without[0], with_memory[1], without[1], with_memory[2]]


def test_features_come_in_the_order_of_the_batch(dataset, store, builder, mixed):
    batch = MemoryCollator(builder, dataset, store)(mixed)
    expected = [store.get(page)[torch.from_numpy(dataset.kept(page))] for sample in mixed for page in sample.pages]
    assert torch.equal(batch["memory_features"], torch.cat(expected))
    placeholders = (batch["input_ids"] == builder.memory.placeholder).sum(1)
    assert placeholders.tolist() == [sample.memory_tokens for sample in mixed]


def test_labels_cover_exactly_the_answer_and_its_end_token(dataset, store, builder, mixed):
    batch = MemoryCollator(builder, dataset, store)(mixed)
    tokenizer = builder.tokenizer
    for row, sample in enumerate(mixed):
        supervised = batch["labels"][row] != -100
        labels = batch["labels"][row][supervised].tolist()
        assert labels == [
            *tokenizer(sample.answer, add_special_tokens=False)["input_ids"],
            builder.end_token_id,
        ]
        assert torch.equal(batch["input_ids"][row][supervised], batch["labels"][row][supervised])
        assert len(labels) == sample.answer_tokens
        assert (batch["input_ids"][row] == builder.end_token_id).sum() > 1, "no earlier end token to mistake"


def test_history_without_pages_stays_as_text(dataset, store, builder, mixed):
    batch = MemoryCollator(builder, dataset, store)(mixed)
    for row, sample in enumerate(mixed):
        turns = builder.tokenizer.decode(batch["input_ids"][row]).count("<|im_start|>")
        assert turns == len(sample.prompt) + 1 + (0 if sample.has_memory else len(sample.history))


def test_training_pads_on_the_right_and_generation_on_the_left(dataset, store, builder, mixed):
    training = MemoryCollator(builder, dataset, store)(mixed)
    generation = MemoryCollator(builder, dataset, store, for_generation=True)(mixed)
    assert "labels" not in generation
    lengths = [sample.sequence_tokens for sample in mixed]
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        assert training["attention_mask"][row].tolist() == [1] * length + [0] * (max(lengths) - length)
        prompt = generation["input_ids"][row][generation["attention_mask"][row].bool()]
        assert prompt.tolist() == training["input_ids"][row, : len(prompt)].tolist()
        assert (training["labels"][row, : len(prompt)] == -100).all()
        assert training["labels"][row, len(prompt)] != -100
    assert generation["attention_mask"][:, -1].all()


def test_a_batch_without_memory_has_no_features(dataset, store, builder, mixed):
    batch = MemoryCollator(builder, dataset, store)([mixed[1], mixed[3]])
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]


def test_pages_and_stored_features_give_the_same_loss(workspace, dataset, store, builder, mixed):
    model = MEMModel.from_run_config(workspace, with_encoder=True)
    features = MemoryCollator(builder, dataset, store)(mixed)
    pages = MemoryCollator(builder, dataset, None)(mixed)
    assert pages["pixel_values"].shape == (sum(len(s.pages) for s in mixed), 3, 256, 256)
    assert pages["page_kept"].dtype == torch.bool
    torch.testing.assert_close(model(**features).loss, model(**pages).loss, atol=1e-5, rtol=0)
    assert model(**features).memory_tokens == sum(s.memory_tokens for s in mixed)


def test_a_row_s_loss_does_not_depend_on_its_neighbours(workspace, dataset, store, builder, mixed):
    model = MEMModel.from_run_config(workspace, with_encoder=False)
    collate = MemoryCollator(builder, dataset, store)
    together = model(**collate(mixed), num_items_in_batch=1).loss
    alone = sum(model(**collate([sample]), num_items_in_batch=1).loss for sample in mixed)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_packed_samples_have_the_loss_of_padded_ones_and_no_padding(workspace, dataset, store, builder, mixed):
    model = MEMModel.from_run_config(workspace, with_encoder=False)
    padded, packed = (MemoryCollator(builder, dataset, store, packing=way)(mixed) for way in (False, True))
    assert packed["sample_lengths"].tolist() == [sample.sequence_tokens for sample in mixed]
    assert torch.equal(packed["input_ids"][0], padded["input_ids"][padded["attention_mask"].bool()])
    torch.testing.assert_close(model(**packed).loss, model(**padded).loss, atol=1e-5, rtol=0)


def test_pages_that_no_longer_fit_the_sample_are_named(dataset, store, builder, mixed):
    wrong = replace(mixed[0], memory_tokens=mixed[0].memory_tokens + 1)
    with pytest.raises(DataError, match=f"sample {wrong.id}.*its pages now give {mixed[0].memory_tokens}"):
        MemoryCollator(builder, dataset, store)([wrong])


def test_a_collator_reaches_worker_processes(dataset, store, builder, mixed):
    collate = MemoryCollator(builder, dataset, store)
    copied = pickle.loads(pickle.dumps(collate))
    for name, tensor in collate(mixed).items():
        assert torch.equal(copied(mixed)[name], tensor)


def test_the_same_seed_gives_the_same_new_proj_and_leaves_random_state_alone(workspace):
    def weights(seed: int) -> np.ndarray:
        run = workspace.model_copy(update={"train": workspace.train.model_copy(update={"seed": seed})})
        return MEMModel.from_run_config(run, with_encoder=False).proj.fc1.weight.detach().numpy()

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert np.array_equal(first, weights(1))
    assert not np.array_equal(first, weights(2))


def test_a_run_s_adapter_loads_again_for_the_run(workspace, tmp_path):
    model = MEMModel.from_run_config(workspace, with_encoder=False)
    model.save_pretrained(tmp_path)
    again = MEMModel.from_pretrained(tmp_path, run_config=workspace, with_encoder=True)
    assert again.config.base_fingerprint
    assert again.config.placeholder_token_id == load_tokenizer(workspace).convert_tokens_to_ids("<|image_pad|>")
    assert again.config.render_section() == workspace.render
    assert torch.equal(again.proj.fc2.weight, model.proj.fc2.weight)

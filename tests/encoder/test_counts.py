"""What `encode` must not do more often than it has to: counted, not timed."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from support.encoders import small_config, small_encoder
from support.models import small_settings
from support.page_dataset import write_page_dataset, written_page

from ocrmem.config import RunConfig
from ocrmem.dataset import shards
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.encode import encode_dataset
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.encoder.page_encoding import batch_size

BATCH = batch_size(256, torch.device("cpu"))


class Counting(DeepEncoder):
    """Remembers how many pages each call was given."""

    def __init__(self) -> None:
        super().__init__(small_config())
        self.load_state_dict(small_encoder().state_dict())
        self.calls: list[int] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(pixels))
        return super().forward(pixels)


def long_conversation(name: str, turns: int) -> str:
    """A conversation in the tiny preset's words; its turns are its history."""
    messages = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"the code of {name} and {turn} is this and that and more of it"})
        messages.append({"role": "assistant", "content": "noted, and what else is there to be said of it then"})
    return json.dumps({"id": name, "messages": messages})


def test_every_different_page_reaches_the_encoder_once_however_many_samples_refer_to_it(tmp_path: Path) -> None:
    values = small_settings(tmp_path, render={"max_pages": 3})
    config = RunConfig.from_dict(values)
    Path(config.data.path).mkdir()
    # Two conversations that begin alike, and many samples of each.
    lines = [long_conversation("a", 12), long_conversation("b", 12).replace("of b and", "of a and")]
    (Path(config.data.path) / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    referred = sum(len(sample.pages) for sample in dataset.samples("train"))
    unique = len(set(dataset.page_hashes()))
    assert referred > 3 * unique
    encoder = Counting()
    encode_dataset(config, encoder)
    assert sum(encoder.calls) == unique == len(FeatureStore.open(config.paths.features))
    assert max(encoder.calls) <= BATCH
    encoder.calls.clear()
    encode_dataset(config, encoder)
    assert encoder.calls == []


def test_memory_of_encode_does_not_grow_with_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PAGE_ROWS", 8)
    peaks = []
    for count in (BATCH, 3 * BATCH):
        root = tmp_path / str(count)
        write_page_dataset(root / "dataset", [written_page(seed) for seed in range(count)])
        config = RunConfig.model_validate(
            {
                "model": {"vision_embedding_size": 64, "device": "cpu"},
                "render": {"page_size": 256, "token_size": 32},
                "paths": {"dataset": str(root / "dataset"), "features": str(root / "features")},
            }
        )
        encoder = Counting()
        encoder(torch.zeros(1, 3, 256, 256))
        tracemalloc.start()
        try:
            encode_dataset(config, encoder)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    a_page = 3 * 256 * 256 * 4
    assert peaks[1] - peaks[0] < a_page, "two more batches take less than one more page"

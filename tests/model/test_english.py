"""The encoder `english`: the one in the box reads, and `base --teach` puts another in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ocrmem.boxed import boxed, boxed_encoder, boxed_names
from ocrmem.config import PathsSection, RenderSection, RunConfig
from ocrmem.config.known_encoders import ENGLISH, known_encoder
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.reading import RandomPages, reading_accuracy
from ocrmem.errors import ConfigError, TrainingError
from ocrmem.files import write_json
from ocrmem.json_files import ModelSource, read_json
from ocrmem.model import english
from ocrmem.model.adapter_files import WEIGHTS, read_config
from ocrmem.model.base import build_base
from ocrmem.model.fetching import CARRIED
from ocrmem.model.fingerprint import fingerprint
from ocrmem.model_places import SOURCE, locate


@pytest.fixture(scope="module")
def encoder() -> DeepEncoder:
    return DeepEncoder.from_pretrained(boxed_encoder(), features="concat")


def test_the_encoder_in_the_box_names_99_percent_of_the_characters_of_new_pages(encoder: DeepEncoder) -> None:
    pages = RandomPages(12345, english.CHARACTERS, english.PAGE_SIZE, english.TOKEN_SIZE, most_blank=0.4)
    head = english.load_head(boxed_encoder(), encoder.feature_size)
    assert reading_accuracy(encoder, head, pages, lines=1, count=8) >= english.READS


def test_the_box_says_how_its_encoder_was_made_and_is_small(encoder: DeepEncoder) -> None:
    source = read_json(boxed_encoder() / SOURCE, ModelSource, made_by="base")
    assert source["weights_sha256"] == encoder.weights_sha256()  # type: ignore[typeddict-item]
    assert sum(path.stat().st_size for path in boxed_encoder().rglob("*.*")) < 10_000_000


@pytest.mark.parametrize("name", boxed_names())
def test_an_adapter_in_the_box_was_trained_with_this_encoder_and_is_small(name: str) -> None:
    assert (boxed(name) / WEIGHTS).stat().st_size < 10_000_000
    config = read_config(boxed(name))
    assert config.ocr_fingerprint == fingerprint(str(boxed_encoder()))
    assert config.base_fingerprint == CARRIED[config.base_model_name].fingerprint


def test_settings_know_its_sizes(encoder: DeepEncoder) -> None:
    known = known_encoder(ENGLISH)
    assert known is not None
    assert known.sizes["concat"] == encoder.feature_size
    assert known.page_sizes == (english.PAGE_SIZE,)
    assert known.token_size == encoder.token_size == english.TOKEN_SIZE


def test_it_is_the_one_in_the_box_unless_one_was_taught_here(tmp_path: Path) -> None:
    assert locate(ENGLISH, tmp_path, "encoder") == str(boxed_encoder())
    write_json(tmp_path / "encoder" / "config.json", {})
    write_json(tmp_path / "encoder" / SOURCE, {"name": ENGLISH, "revision": None})
    assert locate(ENGLISH, tmp_path, "encoder") == str(tmp_path / "encoder")


def test_teaching_is_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(english, "reading_accuracy", lambda *args: 1.0)
    first, again, other = (english.teach_english(seed, 1)[0].weights_sha256() for seed in (3, 3, 4))
    assert first == again != other


def test_an_encoder_that_does_not_read_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = RenderSection(page_size=512, token_size=64, line_height=64)
    config = RunConfig(paths=PathsSection(models=str(tmp_path)), render=render)
    monkeypatch.setattr(english, "teach_english", lambda seed, steps: (None, None, {1: 0.5}))
    with pytest.raises(TrainingError, match=r"named 0\.500 of the characters"):
        english.build_english_encoder(config)
    assert not list(tmp_path.iterdir())


def test_another_encoder_cannot_be_taught() -> None:
    with pytest.raises(ConfigError, match="only 'english' can be taught"):
        build_base(RunConfig(), teach=True)


def test_what_was_taught_reads_back_as_it_was(tmp_path: Path, encoder: DeepEncoder) -> None:
    head = english.load_head(boxed_encoder(), encoder.feature_size)
    english.save_english(encoder, head, tmp_path)
    again = DeepEncoder.from_pretrained(tmp_path, features="concat")
    assert again.weights_sha256() == encoder.weights_sha256()
    assert torch.equal(english.load_head(tmp_path, 768).by_lines["1"].weight, head.by_lines["1"].weight)

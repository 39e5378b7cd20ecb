"""What is known of encoders before they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.run_settings import real

from ocrmem.config import RunConfig
from ocrmem.config.known_encoders import known_encoder
from ocrmem.errors import ConfigError
from ocrmem.families import known_positions


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiny", {"sum": 64, "concat": 128}),
        ("deepseek-ai/DeepSeek-OCR", {"sum": 1024, "concat": 2048}),
        ("/mirror/models/DeepSeek-OCR", {"sum": 1024, "concat": 2048}),
        ("deepseek-ai/DeepSeek-OCR-2", None),
        ("someone/else", None),
        ("a\x00b", None),
    ],
)
def test_known_encoders(name: str, sizes: dict[str, int] | None) -> None:
    encoder = known_encoder(name)
    assert (encoder.sizes if encoder else None) == sizes


def test_local_directories_tell_their_own_sizes(tmp_path: Path) -> None:
    config = {"max_position_embeddings": 777, "vision_config": {"width": {"clip-l-14-224": {"width": 1024}}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert known_positions(str(tmp_path)) == 777
    encoder = known_encoder(str(tmp_path))
    assert encoder is not None
    assert encoder.sizes["sum"] == 1024
    with pytest.raises(ConfigError, match="more than the 777 positions"):
        RunConfig.from_dict(real(model__base_model_name=str(tmp_path)))
    (tmp_path / "config.json").write_text("[")
    assert known_positions(str(tmp_path)) is None
    assert known_encoder(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("config", "sizes", "token_size"),
    [
        ({"encoder_config": {"hidden_size": 48}, "sam_config": {"patch_size": 8}},
         {"sum": 48, "concat": 96}, 32),
        ({"vision_config": {"encoder_config": {"hidden_size": 1024}, "sam_config": {"patch_size": 16}}},
         {"sum": 1024, "concat": 2048}, 64),
        ({"vision_config": {"width": {"clip-l-14-224": {"width": 96}}}}, {"sum": 96, "concat": 192}, None),
        ({"vision_config": {"width": 3}}, None, None),
        ({"vision_config": []}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_a_local_encoders_config_goes_before_its_name(
    tmp_path: Path, config: dict[str, Any], sizes: dict[str, int] | None, token_size: int | None
) -> None:
    directory = tmp_path / "DeepSeek-OCR"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    encoder = known_encoder(str(directory))
    assert (encoder.sizes if encoder else None) == sizes
    assert (encoder.token_size if encoder else None) == token_size

"""Pictures through the encoder, into a file of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.encoders import small_encoder
from support.page_dataset import written_page

from ocrmem.cli import main
from ocrmem.config import RunConfig
from ocrmem.encoder.encode_pictures import encode_pictures
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.errors import CheckFailed, DataError

PARAMS = str(Path(__file__).resolve().parents[2] / "params.yaml")  # pages of 256 px


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    small_encoder().save(tmp_path / "encoder")
    names = {"base_model_name": "mine", "ocr_model_name": str(tmp_path / "encoder"), "device": "cpu"}
    render = {"page_size": 256, "token_size": 32, "line_height": 32}
    return RunConfig.model_validate({"model": names | {"vision_embedding_size": 64}, "render": render})


def test_a_picture_of_a_drawn_page_has_the_features_of_that_page(config: RunConfig, tmp_path: Path) -> None:
    pages = [written_page(seed) for seed in range(2)]
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file, page in zip(files, pages, strict=True):
        file.write_bytes(page.png())
    result = encode_pictures(config, files, tmp_path / "out" / "scans.safetensors")
    found = load_file(result["output"])
    assert torch.equal(found["features"], encode_pages(small_encoder(), pages))
    assert found["kept"].tolist() == [page.ink_mask(32).tolist() for page in pages]
    assert result["summary"][0].startswith(f"{files[0]}: 256 x 256 px, ink where")


def test_what_is_no_picture_leaves_no_file(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"scan\.png: is empty"):
        encode_pictures(config, [tmp_path / "scan.png"], tmp_path / "scans.safetensors")
    assert not (tmp_path / "scans.safetensors").exists()


def test_features_that_a_precision_cannot_hold_are_not_written(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scan.png").write_bytes(written_page(0).png())
    monkeypatch.setattr(
        "ocrmem.encoder.encode_pictures.encode_pages", lambda encoder, pages: torch.full((1, 64, 64), 1e30)
    )
    half = config.model_copy(update={"model": config.model.model_copy(update={"precision": "float16"})})
    with pytest.raises(CheckFailed, match=r"scan\.png: its features are not finite"):
        encode_pictures(half, [tmp_path / "scan.png"], tmp_path / "scans.safetensors")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["encode", "scan.png"], "takes pictures and the file for their features together"),
        (["encode", "--output", "scans.safetensors"], "takes pictures and the file for their features together"),
        (["render", "scan.png"], "takes pictures to show them as pages, not into a dataset"),
        (["render", "--preview", "1", "scan.png"], "scan.png: is not there"),
    ],
)
def test_pictures_on_the_command_line_without_what_they_need(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--config", PARAMS]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_preview_of_pictures_shows_them_as_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    image = Image.new("RGB", (300, 100), "white")
    image.paste("blue", (0, 0, 30, 30))
    image.save("dot.jpg")
    assert main(["render", "--preview", "2", "dot.jpg", "--config", PARAMS]) == 0
    assert "300 x 100 px, shrunk to 256 x 85, on a page of 256 px" in " ".join(capsys.readouterr().out.split())
    with Image.open("preview/page-000.png") as page:
        assert (page.mode, page.size) == ("1", (256, 256))

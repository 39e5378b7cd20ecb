"""A base model of a family that no file describes goes through every verb, as long as its vocabulary has the marks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.models import small_encoder, small_settings, write_conversations
from transformers import LlamaConfig, LlamaForCausalLM

from ocrmem.config import RunConfig
from ocrmem.dataset.build import build_dataset
from ocrmem.encoder.encode import encode_dataset
from ocrmem.evaluation.evaluate import evaluate
from ocrmem.families import FAMILIES, family_of
from ocrmem.generation.generate import generate
from ocrmem.model.base import build_base
from ocrmem.smoke_test import smoke
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer
from ocrmem.training.train import train
from ocrmem.validation import validate_file


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    root = tmp_path_factory.mktemp("llama")
    tokenizer = build_tiny_tokenizer()
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            initializer_range=0.2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )
    base.save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    small_encoder().save(root / "encoder")
    write_conversations(root / "data")
    values = small_settings(root, train={"max_steps": 2, "per_device_batch_size": 4, "save_steps": 2})
    values["model"] |= {"base_model_name": str(root / "base"), "ocr_model_name": str(root / "encoder")}
    (root / "params.yaml").write_text(json.dumps(values))
    return RunConfig.from_dict(values)


@pytest.mark.slow
def test_every_verb_runs_on_a_base_model_that_no_family_describes(config):
    family = family_of(config.model.base_model_name)
    assert family.model_type == "llama"
    assert family not in FAMILIES.values()
    root = Path(config.paths.dataset).parent

    validate_file(root / "params.yaml")
    build_base(config)
    build_dataset(config)
    encode_dataset(config)
    smoke(config)
    train(config)
    assert evaluate(config)["memory"]["samples"] > 0
    question = root / "question.json"
    question.write_text((root / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    assert generate(config, conversation=question)["memory"]

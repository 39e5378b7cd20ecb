"""A small random base model of each family, and one of no family, through every verb."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch
from support.chat import BY_TURNS
from support.models import small_encoder, small_settings, write_conversations
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from ocrmem.config import RunConfig
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.encode import encode_dataset
from ocrmem.evaluation.evaluate import evaluate
from ocrmem.families import FAMILIES, Marks, family_of
from ocrmem.generation.generate import generate
from ocrmem.model.base import build_base
from ocrmem.smoke_test import smoke
from ocrmem.synthetic.tokenizer import CHAT_TEMPLATE, MARKS, TURN_END, TURN_START, build_tiny_tokenizer
from ocrmem.training.train import train
from ocrmem.validation import validate_file

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}
# Whose vocabulary: the last row stands for a base model that no file describes.
BASES = [
    ("llama", {}, Marks("<issue_start>", "<empty_output>", "<issue_closed>")),
    ("llama", {}, Marks(*(f"<|reserved_special_token_{number}|>" for number in range(3)))),
    ("qwen2", {}, MARKS),
    ("qwen3", {}, MARKS),
    ("mistral", {"sliding_window": None}, Marks("[control_768]", "[control_769]", "[control_770]")),
    ("gemma", {}, Marks("<unused0>", "<unused1>", "<unused2>")),
    ("gemma3_text", {"query_pre_attn_scalar": 16}, Marks("<start_of_image>", "<image_soft_token>", "<end_of_image>")),
    ("olmo2", {}, MARKS),
]  # fmt: skip


def write_tokenizer(directory: Path, model_type: str, marks: Marks) -> None:
    """Write the tiny dialect's; for Qwen2, whose own class AutoTokenizer takes whatever the files say, one of bytes."""
    if model_type == "qwen2":
        words = [*(chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)))]
        tokenizer = Qwen2Tokenizer({word: index for index, word in enumerate(words)}, [], unk_token=None)
        tokenizer.add_special_tokens(
            {"eos_token": TURN_END, "additional_special_tokens": [TURN_START, *astuple(marks)]}
        )
        tokenizer.chat_template = CHAT_TEMPLATE
    else:
        tokenizer = build_tiny_tokenizer()
        if model_type in ("mistral", "gemma"):
            tokenizer.chat_template = BY_TURNS + CHAT_TEMPLATE
    tokenizer.save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (directory / name).read_text(encoding="utf-8")
        for old, new in zip(astuple(MARKS), astuple(marks), strict=True):
            text = text.replace(json.dumps(old), json.dumps(new))
        (directory / name).write_text(text, encoding="utf-8")


def write_base(directory: Path, model_type: str, options: dict[str, Any], marks: Marks) -> None:
    write_tokenizer(directory, model_type, marks)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("eos", "pad")}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), bos_token_id=None, **SMALL, **ids, **options)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "options", "marks"), BASES, ids=lambda value: getattr(value, "start", None))
def test_every_verb_runs_on_the_family(tmp_path, model_type, options, marks):
    root = tmp_path
    write_base(root / "base", model_type, options, marks)
    small_encoder().save(root / "encoder")
    write_conversations(root / "data", train=4, held_out=2)
    values = small_settings(
        root,
        smoke={"samples": 2},
        train={"max_steps": 2, "per_device_batch_size": 4, "save_steps": 2},
        evaluate={"max_samples": 2, "batch_size": 4, "max_new_tokens": 2, "examples": 1},
    )
    values["model"] |= {"base_model_name": str(root / "base"), "ocr_model_name": str(root / "encoder")}
    values["model"]["max_seq_length"] = 768
    (root / "params.yaml").write_text(json.dumps(values))
    config = RunConfig.from_dict(values)
    family = family_of(config.model.base_model_name)
    assert (family.model_type, family in FAMILIES.values()) == (model_type, model_type in FAMILIES)
    memory, tokenizer = SequenceBuilder.of(config).memory, AutoTokenizer.from_pretrained(root / "base")
    assert tokenizer.convert_ids_to_tokens([memory.start, memory.placeholder, memory.end]) == list(astuple(marks))

    validate_file(root / "params.yaml")
    build_base(config)
    build_dataset(config)
    encode_dataset(config)
    smoke(config)
    train(config)
    evaluation = evaluate(config)
    assert evaluation["memory"]["samples"] > 0
    # The tiny vocabulary has no single letters, of which an answer could be made.
    assert ("random_answer" in evaluation) == (tokenizer("qzx")["input_ids"] != [tokenizer.unk_token_id])
    question = root / "question.json"
    question.write_text((root / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    assert generate(config, conversation=question)["memory"]

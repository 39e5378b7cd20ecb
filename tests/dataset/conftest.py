"""A small tokenizer with Qwen3's control tokens and the behaviour of its chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chat import MODEL, RENDER, conversation, write_jsonl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ocrmem.config import RunConfig

CONTROL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
]

# Written after the behaviour of Qwen3's: tool results are wrapped and joined into one user turn, an answer
# after the last question opens with an empty thinking block, and one end token closes every message.
QWEN3_LIKE = """
{%- set ns = namespace(query=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.query = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
{%- else %}
{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' and loop.last and loop.index0 > ns.query %}
{{- '<think>\n\n</think>\n\n' + m.content.lstrip('\n') }}
{%- else %}{{ m.content }}{% endif %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""


def byte_level_tokenizer(template: str, eos: str | None = "<|im_end|>") -> PreTrainedTokenizerFast:
    """Byte-level BPE as Qwen has it: every text encodes, and decoding gives it back."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["the user asks the assistant what the code of the locker is\n"] * 4, trainer)
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, pad_token="<|endoftext|>", chat_template=template
    )


@pytest.fixture(scope="session")
def qwen_like() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer(QWEN3_LIKE)


@pytest.fixture(scope="session")
def make_tokenizer():
    return byte_level_tokenizer


@pytest.fixture(scope="session")
def base_directory(qwen_like, tmp_path_factory) -> Path:
    """A directory that `model.base_model_name` can name."""
    path = tmp_path_factory.mktemp("base")
    qwen_like.save_pretrained(path)
    return path


@pytest.fixture
def make_config(tmp_path, base_directory):
    """Settings of a small run in ``tmp_path``; sections given by name change fields."""

    def make(**sections: dict) -> RunConfig:
        values: dict[str, dict] = {
            "model": {**MODEL, "base_model_name": str(base_directory)},
            "render": RENDER,
            "data": {
                "path": str(tmp_path / "data"),
                "workers": 1,
                "shard_conversations": 3,
                "eval_fraction": 0.0,
            },
            "paths": {"dataset": str(tmp_path / "dataset"), "checks": str(tmp_path / "checks")},
        }
        for section, changes in sections.items():
            values[section] = values.get(section, {}) | changes
        return RunConfig.from_dict(values)

    return make


@pytest.fixture
def small_data(tmp_path) -> Path:
    """Eight training and three held-out conversations, one of them too short for memory."""
    data = tmp_path / "data"
    write_jsonl(data / "train.jsonl", [conversation(f"t{i}", 1 if i == 4 else 3 + i % 5) for i in range(8)])
    write_jsonl(data / "eval.jsonl", [conversation(f"e{i}", 4) for i in range(3)])
    write_jsonl(data / "counterfactual.jsonl", [conversation("c0", 4)])
    return data

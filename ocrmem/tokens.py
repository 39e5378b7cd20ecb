"""The tokenizer of the configured base model, and the three tokens that mark memory in a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrmem.config import TINY, RunConfig
from ocrmem.errors import ModelError, first_line
from ocrmem.retry import retrying

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

START, PLACEHOLDER, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"


@dataclass(frozen=True)
class MemoryTokens:
    """Token ids that open memory, stand for one vision token each, and close memory."""

    start: int
    placeholder: int
    end: int


def load_tokenizer(config: RunConfig) -> PreTrainedTokenizerBase:
    """The base model's tokenizer. The tiny preset's is made in code, so it is there before `base` has run.

    Raises:
        ModelError: the name does not load, has no chat template, or lacks the memory tokens.
    """
    if config.model.base_model_name == TINY:
        from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

        return build_tiny_tokenizer()
    return load_named_tokenizer(config.model.base_model_name, config.model.base_revision)


def load_named_tokenizer(name: str, revision: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer from a hub name or a directory, with what memory needs of it checked."""
    from transformers import AutoTokenizer

    try:
        tokenizer = retrying(f"hub, {name}", lambda: AutoTokenizer.from_pretrained(name, revision=revision))
    except (OSError, ValueError) as error:
        raise ModelError.of(
            "model.base_model_name",
            f"no tokenizer loads from {name!r} ({first_line(error)})",
            "Give a directory with tokenizer.json or a hub name that this machine can reach",
        ) from None
    if not tokenizer.chat_template:
        raise ModelError.of(
            "model.base_model_name",
            f"{name!r} has no chat template",
            "Use a chat model such as Qwen/Qwen3-8B",
        )
    memory_tokens(tokenizer)
    return tokenizer


def memory_tokens(tokenizer: PreTrainedTokenizerBase) -> MemoryTokens:
    """The ids of ``<|vision_start|>``, ``<|image_pad|>`` and ``<|vision_end|>`` (the names of Qwen's vocabulary).

    Raises:
        ModelError: the vocabulary lacks one of them.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (START, PLACEHOLDER, END) if token not in vocabulary]
    if missing:
        raise ModelError.of(
            "model.base_model_name",
            f"the tokenizer has no {', '.join(missing)}",
            "Use a model of the Qwen3 family, whose vocabulary holds them",
        )
    return MemoryTokens(vocabulary[START], vocabulary[PLACEHOLDER], vocabulary[END])

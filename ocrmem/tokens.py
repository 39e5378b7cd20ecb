"""The tokenizer of the configured base model, and the ids of the tokens that mark memory in a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrmem.config import TINY, RunConfig
from ocrmem.errors import ModelError, first_line
from ocrmem.families import Family
from ocrmem.model_places import locate
from ocrmem.retry import retrying

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MemoryTokens:
    """Token ids that open memory, stand for one vision token each, and close memory."""

    start: int
    placeholder: int
    end: int


def load_tokenizer(config: RunConfig) -> PreTrainedTokenizerBase:
    """Load the base model's tokenizer. The tiny preset's is made in code, so it exists before `base` has run.

    Raises:
        ModelError: the name does not load, has no chat template, or lacks the memory tokens.
    """
    name, revision = config.model.base_model_name, config.model.base_revision
    if name == TINY:
        from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

        return build_tiny_tokenizer()
    from transformers import AutoTokenizer

    location = locate(name, config.paths.models, "base", revision)
    try:
        tokenizer = retrying(f"hub, {name}", lambda: AutoTokenizer.from_pretrained(location, revision=revision))
    except (OSError, ValueError) as error:
        raise ModelError.of(
            "model.base_model_name",
            f"no tokenizer loads from {name!r} ({first_line(error)})",
            "Run `ocrmem base`, which fetches it, or give a directory with tokenizer.json",
        ) from None
    config.model.family.check_tokenizer(name, tokenizer.get_vocab(), tokenizer.chat_template)
    return tokenizer


def memory_tokens(tokenizer: PreTrainedTokenizerBase, family: Family) -> MemoryTokens:
    """Return the ids of the family's marks in a tokenizer's vocabulary.

    Raises:
        ModelError: the vocabulary lacks them, or there is no chat template.
    """
    vocabulary = tokenizer.get_vocab()
    marks = family.check_tokenizer(tokenizer.name_or_path, vocabulary, tokenizer.chat_template)
    return MemoryTokens(vocabulary[marks.start], vocabulary[marks.placeholder], vocabulary[marks.end])

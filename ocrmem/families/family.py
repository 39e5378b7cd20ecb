"""What differs between base models; `Family` itself describes one that is not registered."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from ocrmem.errors import ModelError

MARK_TOKENS = 2  # one opens memory, one closes it
EXAMPLE = "Qwen/Qwen3-8B"  # named in messages that ask for another base model


@dataclass(frozen=True)
class Marks:
    """Tokens of the vocabulary that open memory, stand for one vision token each, and close memory.

    The first and the last are read as any token is. The placeholder's own embedding is never used: it only has to be a
    token that no text gives.
    """

    start: str
    placeholder: str
    end: str


VISION = Marks("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")  # Qwen2 and later
BRACKETS = Marks("[", "<unk>", "]")  # where nothing is reserved: ordinary text, and the token of unknown bytes


def with_marks(vision_tokens: int) -> int:
    """Return the tokens that memory takes in a sequence: its vision tokens and, where there are any, two marks."""
    return vision_tokens + MARK_TOKENS if vision_tokens else 0


@dataclass(frozen=True)
class Shape:
    """A decoder-only language model with gated MLPs as the arithmetic of `train --plan` sees it."""

    layers: int
    hidden: int  # width of the residual stream
    heads: int  # of queries
    kv_heads: int  # of keys and values
    head: int  # width of one
    inner: int  # width of the gated MLP
    vocabulary: int  # rows of the LM head
    head_norms: bool  # whether queries and keys pass an RMSNorm of their own

    @classmethod
    def of(cls, config: Mapping[str, Any], *, head_norms: bool) -> Shape:
        """Read the shape from the values of a config.json in the usual names."""
        heads = config["num_attention_heads"]
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["intermediate_size"],
            config["vocab_size"],
            head_norms,
        )

    @property
    def query(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head

    @property
    def key(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.kv_heads * self.head

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Widths of input and output of a layer's seven weight matrices, by the names that transformers gives them."""
        return {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key),
            "v_proj": (self.hidden, self.key),
            "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def layer_weights(self) -> int:
        """Elements of a layer's seven weight matrices."""
        return sum(width * height for width, height in self.matrices.values())


class Family:
    """Base models of one ``model_type`` that share a chat template's options and an architecture.

    Args:
        model_type: of config.json.
        marks: what may mark memory, best first; None: the family's own. Vocabularies of one ``model_type`` differ
            (Llama 3's, SmolLM2's), so the first whose tokens are all there are taken.
    """

    marks: tuple[Marks, ...] = (VISION,)
    # What the chat template is given besides messages: no thinking before the answer, in the most common spelling,
    # which templates without such a switch ignore.
    template_options: Mapping[str, Any] = {"enable_thinking": False}
    # Linear layers of the attention by the last parts of their names: LoRA's targets where none are named.
    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    # Whether queries and keys pass an RMSNorm of their own; None: the layers are others than `Shape` describes.
    head_norms: bool | None = None

    def __init__(self, model_type: str, marks: tuple[Marks, ...] | None = None) -> None:
        self.model_type = model_type
        if marks is not None:
            self.marks = marks

    def marks_in(self, vocabulary: Collection[str]) -> Marks | None:
        """Return what marks memory in a vocabulary; None where it has none of the family's marks whole."""
        return next((marks for marks in self.marks if all(mark in vocabulary for mark in astuple(marks))), None)

    def tool_call(self, name: str, arguments: str) -> str:
        """Return an assistant's call of a function as text of the transcript; ``arguments`` is the caller's JSON."""
        call = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'
        return f"<tool_call>\n{call}\n</tool_call>"

    def published(self, name: str) -> dict[str, Any] | None:
        """Return the config.json of a model known by its hub name; None for any other name."""
        return None

    def shape(self, config: Mapping[str, Any]) -> Shape | None:
        """Return the shape that a config.json describes; None where `train --plan` has no arithmetic for it."""
        return None if self.head_norms is None else Shape.of(config, head_norms=self.head_norms)

    def check_tokenizer(self, name: str, vocabulary: Collection[str], chat_template: object) -> Marks:
        """Check that a base model's tokenizer has what samples need, and return what marks memory in it.

        Raises:
            ModelError: it lacks a chat template, or all of the marks.
        """
        place = "model.base_model_name"
        if not chat_template:
            raise ModelError.of(place, f"{name!r} has no chat template", f"Use a chat model such as {EXAMPLE}")
        marks = self.marks_in(vocabulary)
        if marks is None:
            tried = "; or ".join(", ".join(astuple(marks)) for marks in self.marks)
            message = f"the tokenizer of {name!r} (family {self.model_type}) has no tokens to mark memory with: {tried}"
            remedy = "Add three of them as special tokens, resize the model's embeddings and save both to a directory, "
            remedy += f"or name other tokens in a file of ocrmem/families, or use a model such as {EXAMPLE}"
            raise ModelError.of(place, message, remedy)
        return marks


DEFAULT = Family("default")

"""What must hold of a dataset: named expectations over the columns of `ocrmem.dataset.tables`.

Only plain values here; `ocrmem.dataset.quality` turns them into Great Expectations'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ocrmem.config import RunConfig
from ocrmem.facts import tokens_per_page

Kind = Literal["between", "in_set", "pair_equal"]
_RENDER_AGAIN = "Run `ocrmem render` again; the dataset was changed after it was written"


@dataclass(frozen=True)
class Expectation:
    """One expectation.

    Attributes:
        name: what a failure is called.
        table: "samples", "pages" or "shards".
        kind: in_set and between look at ``column``, pair_equal at ``column`` and ``other``.
        column: the column.
        meaning: what it says, for people.
        remedy: what to do when it fails.
        other: second column of pair_equal.
        low: lower bound of between; None for none.
        high: upper bound of between; None for none.
        values: of in_set.
    """

    name: str
    table: str
    kind: Kind
    column: str
    meaning: str
    remedy: str
    other: str | None = None
    low: float | None = None
    high: float | None = None
    values: tuple[Any, ...] = ()


def expectations(config: RunConfig, manifest: dict[str, Any]) -> list[Expectation]:
    """All expectations of a dataset.

    Args:
        config: bounds of section check.
        manifest: the dataset's; page size and threshold are those it was made with.
    """
    render, model = manifest["config"]["render"], manifest["config"]["model"]
    return [*_samples(config, model), *_pages(config, render), *_shards()]


def _samples(config: RunConfig, model: dict[str, Any]) -> list[Expectation]:
    check = config.check
    return [
        Expectation(
            "sample_ids_unique",
            "samples",
            "pair_equal",
            "id",
            "no two samples have the same id",
            _RENDER_AGAIN,
            other="unique_id",
        ),
        Expectation(
            "sample_pages_resolve",
            "samples",
            "between",
            "unknown_pages",
            "every page hash of a sample is the hash of a stored page",
            _RENDER_AGAIN,
            low=0,
            high=0,
        ),
        Expectation(
            "memory_where_history_exceeds_threshold",
            "samples",
            "pair_equal",
            "has_memory",
            f"a sample has memory exactly when its history has more than {model['context_threshold']} tokens",
            _RENDER_AGAIN,
            other="over_threshold",
        ),
        Expectation(
            "memory_tokens_match_pages",
            "samples",
            "pair_equal",
            "memory_tokens",
            "a sample's memory tokens are the kept tokens of its pages",
            _RENDER_AGAIN,
            other="kept_tokens_of_pages",
        ),
        Expectation(
            "compression_ratio_in_bounds",
            "samples",
            "between",
            "compression_ratio",
            "text tokens per memory token, over samples with memory",
            "Look at those samples (very short lines, or an alphabet that takes many tokens), then change "
            "render.newlines, or the bounds in check.min_compression_ratio and check.max_compression_ratio",
            low=check.min_compression_ratio,
            high=check.max_compression_ratio,
        ),
        Expectation(
            "answers_not_empty",
            "samples",
            "between",
            "answer_characters",
            "an answer has at least one character that is not white space",
            "Remove those turns from the data, or give them weight 0",
            low=1,
        ),
        Expectation(
            "answers_supervised",
            "samples",
            "between",
            "answer_tokens",
            "at least one token of the answer and its end token are supervised",
            _RENDER_AGAIN,
            low=2,
        ),
        Expectation(
            "sequences_fit",
            "samples",
            "between",
            "sequence_tokens",
            f"a sequence has at most max_seq_length ({model['max_seq_length']}) tokens",
            _RENDER_AGAIN,
            low=1,
            high=model["max_seq_length"],
        ),
        Expectation(
            "no_conversation_in_train_and_held_out",
            "samples",
            "between",
            "sides_of_conversation",
            "a conversation is either for training or held out",
            "Give one of the two conversations another id, or remove one of them",
            low=1,
            high=1,
        ),
        Expectation(
            "no_history_in_train_and_held_out",
            "samples",
            "between",
            "sides_of_content",
            "no history and question with memory that is held out is also trained on, under whatever id",
            "Remove the repeated conversations from the training files or from the held-out ones",
            low=1,
            high=1,
        ),
    ]


def _pages(config: RunConfig, render: dict[str, Any]) -> list[Expectation]:
    size = render["page_size"]
    tokens = tokens_per_page(size, render["token_size"])
    check = config.check
    return [
        Expectation(
            "page_hashes_unique",
            "pages",
            "pair_equal",
            "hash",
            "every page is stored once",
            _RENDER_AGAIN,
            other="unique_hash",
        ),
        Expectation(
            "page_hash_matches_bits",
            "pages",
            "pair_equal",
            "hash",
            "a page's name is the sha256 of its bits and atlas version",
            _RENDER_AGAIN,
            other="hash_of_bits",
        ),
        Expectation(
            "page_size",
            "pages",
            "in_set",
            "size",
            f"pages have {size} px, what the dataset was made for",
            _RENDER_AGAIN,
            values=(size,),
        ),
        Expectation(
            "page_bytes",
            "pages",
            "in_set",
            "bytes_of_bits",
            f"a page of {size} px has {size * size // 8} bytes of bits",
            _RENDER_AGAIN,
            values=(size * size // 8,),
        ),
        Expectation(
            "kept_tokens",
            "pages",
            "between",
            "kept_tokens",
            f"1 to {tokens} vision tokens of a page have ink",
            _RENDER_AGAIN,
            low=1,
            high=tokens,
        ),
        Expectation(
            "ink_mask_matches_bits",
            "pages",
            "pair_equal",
            "ink_mask",
            "the stored ink mask is that of the page's bits",
            _RENDER_AGAIN,
            other="ink_mask_of_bits",
        ),
        Expectation(
            "ink_share_in_bounds",
            "pages",
            "between",
            "ink_share",
            "black pixels of those patches that have ink",
            "Look at the pages (`ocrmem render --preview 5`), then change check.min_ink_share and "
            "check.max_ink_share if they are as they should be",
            low=check.min_ink_share,
            high=check.max_ink_share,
        ),
    ]


def _shards() -> list[Expectation]:
    return [
        Expectation(
            "shard_matches_manifest",
            "shards",
            "pair_equal",
            "sha256",
            "a shard's bytes are those the manifest names",
            _RENDER_AGAIN,
            other="sha256_of_file",
        )
    ]

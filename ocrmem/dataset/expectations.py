"""Named expectations over the columns of `ocrmem.dataset.tables`: all that must hold of a dataset.

Only plain values here; `ocrmem.dataset.quality` turns them into Great Expectations'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ocrmem.config import RunConfig
from ocrmem.facts import tokens_per_page
from ocrmem.json_files import DatasetManifest

Kind = Literal["between", "in_set", "pair_equal"]
_RENDER_AGAIN = "Run `ocrmem render` again; the dataset was changed after it was written"


@dataclass(frozen=True)
class Expectation:
    """One expectation over a column, or over two that must be equal in every row.

    Attributes:
        name: what a failure is called.
        table: "samples" or "pages".
        meaning: the expectation in words.
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
    remedy: str = _RENDER_AGAIN
    other: str | None = None
    low: float | None = None
    high: float | None = None
    values: tuple[Any, ...] = ()


def expectations(config: RunConfig, manifest: DatasetManifest) -> list[Expectation]:
    """Return all expectations of a dataset.

    Args:
        config: bounds of section check.
        manifest: the dataset's; page size and threshold are those it was made with.
    """
    check, render, model = config.check, manifest["config"]["render"], manifest["config"]["model"]
    size, threshold, longest = render["page_size"], model["context_threshold"], model["max_seq_length"]
    tokens = tokens_per_page(size, render["token_size"])
    return [
        _equal("samples", "sample_ids_unique", "id", "unique_id", "no two samples have the same id"),
        _between(
            "samples",
            "sample_pages_resolve",
            "unknown_pages",
            (0, 0),
            "every page hash of a sample is the hash of a stored page",
        ),
        _equal(
            "samples",
            "memory_where_history_exceeds_threshold",
            "has_memory",
            "over_threshold",
            f"a sample has memory exactly when its history has more than {threshold} tokens",
        ),
        _equal(
            "samples",
            "memory_tokens_match_pages",
            "memory_tokens",
            "kept_tokens_of_pages",
            "a sample's memory tokens are the kept tokens of its pages",
        ),
        _between(
            "samples",
            "compression_ratio_in_bounds",
            "compression_ratio",
            (check.min_compression_ratio, check.max_compression_ratio),
            "text tokens per memory token, over samples with memory",
            "Look at those samples (very short lines, or an alphabet that takes many tokens), then change "
            "render.newlines, or the bounds in check.min_compression_ratio and check.max_compression_ratio",
        ),
        _between(
            "samples",
            "answers_not_empty",
            "answer_characters",
            (1, None),
            "an answer has at least one character that is not white space",
            "Remove those turns from the data, or give them weight 0",
        ),
        _between(
            "samples",
            "answers_supervised",
            "answer_tokens",
            (2, None),
            "at least one token of the answer and its end token are supervised",
        ),
        _between(
            "samples",
            "sequences_fit",
            "sequence_tokens",
            (1, longest),
            f"a sequence has at most max_seq_length ({longest}) tokens",
        ),
        _between(
            "samples",
            "no_conversation_in_train_and_held_out",
            "sides_of_conversation",
            (1, 1),
            "a conversation is either for training or held out",
            "Give one of the two conversations another id, or remove one of them",
        ),
        _between(
            "samples",
            "no_history_in_train_and_held_out",
            "sides_of_content",
            (1, 1),
            "no history and question with memory that is held out is also trained on, under whatever id",
            "Remove the repeated conversations from the training files or from the held-out ones",
        ),
        _equal("pages", "page_hashes_unique", "hash", "unique_hash", "every page is stored once"),
        _equal(
            "pages",
            "page_hash_matches_bits",
            "hash",
            "hash_of_bits",
            "a page's name is the sha256 of its bits and atlas version",
        ),
        _one_of("page_size", "size", size, f"pages have {size} px, what the dataset was made for"),
        _one_of(
            "page_bytes", "bytes_of_bits", size * size // 8, f"a page of {size} px has {size * size // 8} bytes of bits"
        ),
        _between("pages", "kept_tokens", "kept_tokens", (1, tokens), f"1 to {tokens} vision tokens of a page have ink"),
        _equal(
            "pages",
            "ink_mask_matches_bits",
            "ink_mask",
            "ink_mask_of_bits",
            "the stored ink mask is that of the page's bits",
        ),
        _between(
            "pages",
            "ink_share_in_bounds",
            "ink_share",
            (check.min_ink_share, check.max_ink_share),
            "black pixels of those patches that have ink",
            "Look at the pages (`ocrmem render --preview 5`), then change check.min_ink_share and "
            "check.max_ink_share if they are as they should be",
        ),
    ]


def _equal(table: str, name: str, column: str, other: str, meaning: str) -> Expectation:
    return Expectation(name, table, "pair_equal", column, meaning, other=other)


def _between(
    table: str,
    name: str,
    column: str,
    bounds: tuple[float | None, float | None],
    meaning: str,
    remedy: str = _RENDER_AGAIN,
) -> Expectation:
    return Expectation(name, table, "between", column, meaning, remedy, low=bounds[0], high=bounds[1])


def _one_of(name: str, column: str, value: int, meaning: str) -> Expectation:
    return Expectation(name, "pages", "in_set", column, meaning, values=(value,))

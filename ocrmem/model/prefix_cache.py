"""Keys and values of the sequence that a language model read last, for one that begins alike."""

from __future__ import annotations

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


class PrefixCache:
    """Lets a language model read only what a sequence adds to the one before it.

    Two sequences are alike as far as their tokens are, and the features of the vision tokens among them, bit for bit.
    One sequence is kept: the last one, with its answer.

    Args:
        config: the language model's. One that keeps a state instead of keys and values reads every sequence whole:
            such a state has no beginning to go back to.
        placeholder_token_id: stands for a vision token.
    """

    def __init__(self, config: PretrainedConfig, placeholder_token_id: int) -> None:
        self._config = config
        self._placeholder = placeholder_token_id
        self.forget()

    def __len__(self) -> int:
        """Return how many tokens are kept."""
        return self._cache.get_seq_length()

    def forget(self) -> None:
        """Keep nothing."""
        self._ids: torch.Tensor | None = None
        self._features: torch.Tensor | None = None
        cache = DynamicCache(config=self._config)
        # A sliding window would drop keys that a shorter sequence needs again; the mask hides them where they are kept.
        attends = all(isinstance(layer, DynamicLayer) for layer in cache.layers)
        self._cache = DynamicCache() if attends else cache

    def take(self, ids: torch.Tensor, features: torch.Tensor | None) -> DynamicCache:
        """Hand out the keys and values of the tokens with which a sequence begins as the kept one does.

        They grow when the rest is read, so nothing is kept until `keep`: reading may be interrupted.

        Args:
            ids: long [L].
            features: of its vision tokens [m, d].

        Returns:
            At most L - 1 tokens: the last one is always read.
        """
        shared, cache = self._shared(ids, features), self._cache
        self.forget()
        if not shared:
            return self._cache
        cache.crop(shared - cache.get_seq_length())
        return cache

    def keep(self, ids: torch.Tensor, features: torch.Tensor | None, cache: DynamicCache) -> None:
        """Keep what was read.

        Args:
            ids: long [L] with the answer's tokens behind them, of which the last need not have been read.
            features: as in `take`.
            cache: what `take` gave, after reading.
        """
        self._ids, self._features, self._cache = ids[: cache.get_seq_length()], features, cache

    def _shared(self, ids: torch.Tensor, features: torch.Tensor | None) -> int:
        """Return how many tokens at the beginning are those kept."""
        if self._ids is None or not self._cache.is_croppable:
            return 0
        length = min(len(self._ids), len(ids) - 1)
        alike = self._ids[:length] == ids[:length]
        if self._features is not None and features is not None:
            placeholders = (ids[:length] == self._placeholder).nonzero().flatten()
            count = min(len(placeholders), len(self._features))
            alike[placeholders[:count]] &= (self._features[:count] == features[:count]).all(dim=1)
        return int(alike.long().cumprod(0).sum())

"""Copies of a file's content in which one bit is another."""

from __future__ import annotations

import random
from collections.abc import Iterator


def flipped(content: bytes, seed: str, count: int = 100) -> Iterator[bytes]:
    """Yield ``count`` copies, each with one bit flipped at a place that ``seed`` decides."""
    chosen = random.Random(seed)
    for _ in range(count):
        place = chosen.randrange(len(content))
        yield content[:place] + bytes([content[place] ^ 1 << chosen.randrange(8)]) + content[place + 1 :]

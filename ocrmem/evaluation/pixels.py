"""From text to vision features as it happens for a user: draw, encode. Nothing stored is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ocrmem.config import RenderSection
from ocrmem.conversations import Message
from ocrmem.encoder.pages import Encoder, encode_pages
from ocrmem.rendering import Atlas, Page, render_text, transcript


@dataclass(frozen=True)
class DrawnMemory:
    """A history on pages.

    Attributes:
        pages: oldest first; at most ``render.max_pages``, the newest ones.
        kept: bool [n] for each page: which of its vision tokens stand in the sequence.
        dropped_pages: older pages that there was no room for.
    """

    pages: tuple[Page, ...]
    kept: tuple[np.ndarray, ...]
    dropped_pages: int

    @classmethod
    def of(
        cls, pages: Sequence[Page], settings: RenderSection, *, drop_blank_tokens: bool, dropped: int = 0
    ) -> DrawnMemory:
        """Pages with the masks that the settings ask for."""
        masks = [page.ink_mask(settings.token_size) for page in pages]
        kept = tuple(mask if drop_blank_tokens else np.ones_like(mask) for mask in masks)
        return cls(tuple(pages), kept, dropped)


def draw_memory(
    history: Sequence[Message], settings: RenderSection, atlas: Atlas, *, drop_blank_tokens: bool
) -> DrawnMemory:
    """Draw a history just as `ocrmem render` draws it.

    Args:
        history: the messages that become memory.
        settings: page, line and token sizes, labels, the most pages.
        atlas: of ``settings.atlas``.
        drop_blank_tokens: leave out the vision tokens of patches without ink.
    """
    pages = render_text(transcript(history, settings.labels), settings, atlas).pages
    recent = pages[-settings.max_pages :]
    inked = [page for page in recent if page.bits.any()]
    return DrawnMemory.of(inked, settings, drop_blank_tokens=drop_blank_tokens, dropped=len(pages) - len(recent))


def encode_memory(encoder: Encoder, drawn: DrawnMemory) -> torch.Tensor:
    """The features of a drawn history's kept vision tokens, float32 [tokens, d] on the CPU."""
    features_PND = encode_pages(encoder, drawn.pages)
    kept_PN = torch.from_numpy(np.stack(drawn.kept)).to(features_PND.device)
    return features_PND[kept_PN].float().cpu()

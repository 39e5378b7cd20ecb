"""Teaching an encoder to read: pages as the renderer draws them, and a head that names what is under each token."""

from __future__ import annotations

import pytest
import torch

from ocrmem.config import RenderSection
from ocrmem.encoder.reading import RandomPages, ReadingHead
from ocrmem.rendering import load_atlas, render_text

CHARACTERS = " abcdefgh"


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_random_pages_are_what_the_renderer_draws_of_their_characters(lines: int) -> None:
    by_token, pixels = RandomPages(0, CHARACTERS, 128, 64, 0.4).draw(1, lines)
    # [page, rows of tokens, columns of tokens, lines, columns] -> lines of the page from top to bottom
    rows = by_token.reshape(2, 2, lines, 8).transpose(1, 2).reshape(2 * lines, 16)
    text = "\n".join("".join(CHARACTERS[number] for number in row) for row in rows.tolist())
    settings = RenderSection(page_size=128, token_size=64, line_height=64 // lines)
    page = render_text(text.replace(" ", "\N{NO-BREAK SPACE}"), settings, load_atlas()).pages[0]
    drawn = (rows > 0).repeat_interleave(64 // lines, 0).repeat_interleave(8, 1)  # how blanks are drawn is theirs
    assert torch.equal(pixels[0][:, drawn], torch.from_numpy(page.pixels().copy())[:, drawn])


def test_the_head_scores_every_cell_of_a_token() -> None:
    head = ReadingHead(6, 8, len(CHARACTERS), (1, 4))
    assert head(torch.zeros(3, 5, 6), 4).shape == (3, 5, 32, len(CHARACTERS))

"""Teach an encoder to read: name the characters of random pages, whose pages have no words and no language in them.

Random encoders do not read: what they give depends on the page, but no projector gets unseen text at a varying place
out of it. So a throw-away head learns, together with the encoder, to name the characters under each vision token. The
language model's vocabulary plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer

from ocrmem.console import progress_bar
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.facts import CELL_HEIGHT, CELL_WIDTH
from ocrmem.rendering import load_atlas

TEST_PAGES = 32


class Lesson(NamedTuple):
    """Pages with so many lines to a vision token (drawn anew for each batch), for so many steps."""

    lines: tuple[int, ...]
    steps: int


class RateCourse(NamedTuple):
    """The learning rate over the steps: up in a line, level, then down in a line.

    Attributes:
        risen, level_until: share of the steps.
        least: share of the full rate at the end.
    """

    risen: float
    level_until: float
    least: float

    def share(self, step: int, steps: int) -> float:
        """Return the share of the full rate at a step of so many."""
        done = step / steps
        if done < self.risen:
            return done / self.risen + 0.02
        return 1.0 if done < self.level_until else max(self.least, (1 - done) / (1 - self.level_until))


class RandomPages:
    """Pages of random characters in the renderer's cells and on the renderer's lines.

    Args:
        seed: of the characters and their places.
        characters: what is drawn; the first is the blank.
        page_size: px of the page's side.
        token_size: px of the side of one vision token's square.
        most_blank: a page's share of blank cells is drawn up to this.
    """

    def __init__(self, seed: int, characters: str, page_size: int, token_size: int, most_blank: float) -> None:
        atlas = load_atlas()
        cells = [atlas.cells[atlas.index[ord(character)]] for character in characters]
        bits = torch.stack([torch.from_numpy(cell.copy()) for cell in cells])  # uint8 [characters, 16]
        places = torch.arange(7, -1, -1, dtype=torch.uint8)
        self.glyphs = ((bits[..., None] >> places) & 1).float()  # [characters, 16, 8]
        self.source = torch.Generator().manual_seed(seed)
        self.page_size, self.token_size, self.most_blank = page_size, token_size, most_blank

    def draw(self, count: int, lines: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw pages with ``lines`` lines to a vision token.

        Returns:
            Character numbers [B, tokens, lines x columns of a token], and pixels [B, 3, S, S].
        """
        side, columns = self.page_size // self.token_size, self.token_size // CELL_WIDTH
        height = self.token_size // lines
        top = (height - CELL_HEIGHT) // 2
        shape = (count, side * lines, side * columns)
        drawn = torch.randint(1, len(self.glyphs), shape, generator=self.source)
        blank = torch.rand(count, 1, 1, generator=self.source) * self.most_blank
        drawn[torch.rand(shape, generator=self.source) < blank] = 0
        ink = torch.zeros(count, side * lines, height, side * columns, CELL_WIDTH)
        ink[:, :, top : top + CELL_HEIGHT] = self.glyphs[drawn].permute(0, 1, 3, 2, 4)
        pixels = 1 - 2 * ink.reshape(count, 1, self.page_size, self.page_size)
        by_token = drawn.reshape(count, side, lines, side, columns).permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
        return by_token, pixels.expand(-1, 3, -1, -1)


class ReadingHead(nn.Module):
    """Scores of every character in every cell of a vision token: a linear map for each number of lines to a token."""

    def __init__(self, feature_size: int, columns: int, characters: int, lines: Sequence[int]) -> None:
        super().__init__()
        self.characters = characters
        self.by_lines = nn.ModuleDict(
            {str(number): nn.Linear(feature_size, number * columns * characters) for number in lines}
        )

    def forward(self, features: torch.Tensor, lines: int) -> torch.Tensor:
        """Return scores [B, tokens, cells, characters] of features [B, tokens, d]."""
        return self.by_lines[str(lines)](features).unflatten(-1, (-1, self.characters))


def teach(
    encoder: DeepEncoder,
    head: ReadingHead,
    pages: RandomPages,
    lessons: Sequence[Lesson],
    optimizers: Callable[[list[tuple[str, nn.Parameter]]], Sequence[Optimizer]],
    course: RateCourse,
    *,
    batch_size: int,
    autocast: torch.dtype | None = None,
) -> None:
    """Train an encoder and its head until the lessons are over; the encoder is frozen and in eval mode then.

    Args:
        optimizers: makes them from the named parameters of both; their rates are the highest.
        course: of that rate.
        batch_size: pages a step.
        autocast: data type of the forward pass; None: float32.
    """
    encoder.train().requires_grad_(True)
    named = [*encoder.named_parameters(), *((f"head.{name}", value) for name, value in head.named_parameters())]
    made = optimizers(named)
    highest = [[group["lr"] for group in optimizer.param_groups] for optimizer in made]
    parameters = [value for _, value in named]
    plan = [lesson.lines for lesson in lessons for _ in range(lesson.steps)]
    with progress_bar("teaching the encoder characters", len(plan)) as bar:
        for step, choice in enumerate(plan):
            share = course.share(step, len(plan))
            for optimizer, rates in zip(made, highest, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * share
            lines = choice[0]
            if len(choice) > 1:
                lines = choice[int(torch.randint(len(choice), (1,), generator=pages.source))]
            wanted, pixels = pages.draw(batch_size, lines)
            with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                scores = head(encoder(pixels), lines)
            loss = F.cross_entropy(scores.flatten(0, 2).float(), wanted.flatten())
            for optimizer in made:
                optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in made:
                optimizer.step()
            bar.advance()
    encoder.eval().requires_grad_(False)


@torch.no_grad()
def reading_accuracy(
    encoder: DeepEncoder, head: ReadingHead, pages: RandomPages, lines: int, count: int = TEST_PAGES
) -> float:
    """Return the share of characters, blanks left out, on ``count`` new pages that the head names."""
    wanted, pixels = pages.draw(count, lines)
    right = head(encoder(pixels), lines).argmax(-1) == wanted
    return right[wanted > 0].float().mean().item()

"""The encoder `english`: DeepSeek-OCR's architecture at 4 million parameters, taught to read printable ASCII.

The one in the box was made by `ocrmem base --teach` with configs/english.yaml; source.json beside it says how.

Taught with Muon on its matrices (Jordan et al. 2024; rates matched to AdamW's as in Liu et al. 2025, arXiv:2502.16982):
AdamW alone named 10 % of the characters after 580 steps, with Muon it was 58 % after 450.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from transformers import UnlimitedOcrVisionConfig

from ocrmem.config import RunConfig
from ocrmem.config.known_encoders import ENGLISH
from ocrmem.encoder.architecture import Tower, scaled_config
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.reading import Lesson, RandomPages, RateCourse, ReadingHead, reading_accuracy, teach
from ocrmem.errors import TrainingError
from ocrmem.facts import CELL_WIDTH
from ocrmem.files import replacing_directory, write_json
from ocrmem.model_places import SOURCE
from ocrmem.rendering import load_atlas
from ocrmem.versions import versions

PAGE_SIZE, TOKEN_SIZE = 512, 64  # px
CHARACTERS = (
    "".join(map(chr, range(ord(" "), 0x7F)))
    + "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u2022\u20ac\u00a3\u00b0\u00b7"
)
LINES = (1, 2, 4)  # to a vision token: 8, 16 and 32 characters
_LESSONS = (((1,), 0.35), ((1, 2), 0.2), ((1, 2, 4), 0.45))  # lines to a token, share of the steps
_BATCH = 4
_MUON_RATE, _ADAMW_RATE, _WEIGHT_DECAY = 1.2e-2, 3e-3, 0.01
_COURSE = RateCourse(risen=0.03, level_until=0.5, least=0.01)
_MOST_BLANK = 0.4
READS = 0.99  # share of the characters that it must name at the settings' lines to a token
# Of one line to a token, with which the accuracy can be measured again; beside the weights it would be one of them.
HEAD = "head/head.safetensors"


def english_encoder_config() -> UnlimitedOcrVisionConfig:
    """Return the geometry: pages of 512 px give 8x8 vision tokens of 768 numbers (``concat``), each of 64x64 px."""
    sam, clip = Tower(width=128, layers=2, heads=4, mlp=256), Tower(width=384, layers=2, heads=6, mlp=768)
    # A window is a vision token's square.
    return scaled_config(PAGE_SIZE, TOKEN_SIZE, sam, clip, middle=256, window=4)


def teach_english(seed: int, steps: int) -> tuple[DeepEncoder, ReadingHead, dict[int, float]]:
    """Teach a new encoder to read random characters with one line to a vision token, then with two and four as well.

    Args:
        seed: of weights and pages.
        steps: of 4 pages each.

    Returns:
        The encoder, frozen and in eval mode, with bfloat16 values; its head; and by lines to a token the share of
        characters on new pages that the head names.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = DeepEncoder(english_encoder_config(), "concat")
        head = ReadingHead(encoder.feature_size, TOKEN_SIZE // CELL_WIDTH, len(CHARACTERS), LINES)
    pages = RandomPages(seed, CHARACTERS, PAGE_SIZE, TOKEN_SIZE, _MOST_BLANK)
    lessons = [Lesson(lines, round(share * steps)) for lines, share in _LESSONS]
    teach(encoder, head, pages, lessons, _optimizers, _COURSE, batch_size=_BATCH, autocast=torch.bfloat16)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *head.parameters()):
            parameter.copy_(parameter.bfloat16())  # what is stored, and so what is measured
    return encoder, head, {lines: reading_accuracy(encoder, head, pages, lines) for lines in LINES}


def build_english_encoder(config: RunConfig) -> dict[str, Any]:
    """Teach the encoder and leave it in ``models``/encoder, in place of the one in the box.

    Deterministic for ``base.seed``, ``base.encoder_steps``, a machine and its number of threads.

    Returns:
        What source.json holds.

    Raises:
        TrainingError: it names less than 99 % of the characters at the settings' lines to a vision token.
    """
    base, lines = config.base, config.render.token_size // config.render.line_height
    encoder, head, accuracy = teach_english(base.seed, base.encoder_steps)
    if (reached := accuracy.get(lines, 0.0)) < READS:
        message = f"the encoder named {reached:.3f} of the characters with {lines} line(s) to a token, not {READS}"
        raise TrainingError.of("base.encoder_steps", message, "Raise base.encoder_steps, or take another base.seed")
    source = {
        "name": ENGLISH,
        "revision": None,
        "from": "ocrmem base --teach",
        "seed": base.seed,
        "steps": base.encoder_steps,
        "character_accuracy": {str(number): round(share, 5) for number, share in accuracy.items()},
        "characters": CHARACTERS,
        "atlas": load_atlas().version,
        "weights_sha256": encoder.weights_sha256(),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "transformers"),
    }
    with replacing_directory(Path(config.paths.encoder)) as directory:
        save_english(encoder, head, directory)
        write_json(directory / SOURCE, source)
    return source


def save_english(encoder: DeepEncoder, head: ReadingHead, directory: Path) -> None:
    """Write the encoder, and the head of one line to a token, in bfloat16."""
    encoder.to(torch.bfloat16).save(directory)
    weights = {name: value.bfloat16() for name, value in head.by_lines["1"].state_dict().items()}
    (directory / HEAD).parent.mkdir()
    save_file(weights, directory / HEAD)


def load_head(directory: Path, feature_size: int) -> ReadingHead:
    """Read the head that `save_english` wrote, for one line to a token."""
    head = ReadingHead(feature_size, TOKEN_SIZE // CELL_WIDTH, len(CHARACTERS), (1,))
    head.by_lines["1"].load_state_dict(load_file(directory / HEAD))
    return head.float()


def _optimizers(named: list[tuple[str, nn.Parameter]]) -> list[Optimizer]:
    tables = ("head.", "position", "embed", "rel_pos")
    matrices = [value for name, value in named if value.ndim == 2 and not any(part in name for part in tables)]
    chosen = {id(value) for value in matrices}
    rest = [value for _, value in named if id(value) not in chosen]
    return [
        AdamW(rest, lr=_ADAMW_RATE, weight_decay=_WEIGHT_DECAY, betas=(0.9, 0.98)),
        Muon(matrices, lr=_MUON_RATE, weight_decay=_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
    ]

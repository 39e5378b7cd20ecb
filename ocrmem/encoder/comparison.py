"""``ocrmem base --verify-encoder``: one page through the native modules and through deepseek-ocr-encoder."""

from __future__ import annotations

from typing import TypedDict

import torch

from ocrmem.config import RunConfig
from ocrmem.encoder.loading import load_native
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.encoder.wrapped_encoder import PACKAGE, WrappedEncoder
from ocrmem.errors import CheckFailed
from ocrmem.rendering import load_atlas, render_text

# Greatest difference, in units of the features' root mean square. A second writing of the encoder, with random weights:
# 3e-6 in float32; in bfloat16 0.053, where either is as far from its own float32 features.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.0125}
_TEXT = "user: What did the last page say?\nassistant: That every page is read twice, and must say the same.\n"


class Comparison(TypedDict):
    """What two implementations of one encoder made of a page.

    Attributes:
        page_size: px.
        tokens, width: of the features, ``sum``.
        computed_in: dtype of the weights.
        difference: the greatest, in units of the features' root mean square.
        tolerance: the most that it may be.
        summary: what a person reads.
    """

    page_size: int
    tokens: int
    width: int
    computed_in: str
    difference: float
    tolerance: float
    summary: list[str]


def compare_implementations(config: RunConfig) -> Comparison:
    """Draw a page, and compare the native features ``sum`` with those that the package gives from the same weights.

    The package's own preprocessing and ``_forward_core`` are used, whatever ``model.encoder`` says.

    Raises:
        CheckFailed: they differ by more than `TOLERANCES`.
        ConfigError: the package is not installed.
        MissingInputError, ModelError: as `load_encoder`.
    """
    settings = config.render
    page = render_text(_TEXT * 99, settings, load_atlas(settings.atlas)).pages[0]
    encoder = load_native(config, "sum")
    native = encode_pages(encoder, [page]).float()
    package = encode_pages(WrappedEncoder.of_native(encoder), [page]).float()
    difference = float((native - package).abs().max() / native.square().mean().sqrt())
    tolerance, dtype = TOLERANCES[encoder.dtype], str(encoder.dtype).removeprefix("torch.")
    said = f"a page of {page.size} px through the native modules and {PACKAGE} differs by {difference:.1e} of its size"
    if not difference <= tolerance:
        raise CheckFailed.of(
            "base --verify-encoder",
            f"{said}, more than {tolerance:g} in {dtype}",
            "Compare the versions of transformers and torch with constraints.txt, and use model.encoder: native",
        )
    return {
        "page_size": page.size,
        "tokens": native.shape[1],
        "width": native.shape[2],
        "computed_in": dtype,
        "difference": difference,
        "tolerance": tolerance,
        "summary": [f"encoder: {said} ({dtype}; at most {tolerance:g})"],
    }

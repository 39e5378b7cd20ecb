"""``ocrmem encode PICTURE ... --output FILE``: scanned pages through the encoder, into a file of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import save

from ocrmem.config import RunConfig
from ocrmem.encoder.device import DTYPES
from ocrmem.encoder.encode import check_fit
from ocrmem.encoder.loading import load_encoder
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.errors import CheckFailed
from ocrmem.files import write_bytes
from ocrmem.rendering.picture import read_picture


class PicturesResult(TypedDict):
    """What was encoded.

    Attributes:
        output: the file.
        pages: hashes of the pages that the pictures became, in the order of the file.
        summary: what a person reads: what was done to each picture, and the file.
    """

    output: str
    pages: list[str]
    summary: list[str]


def encode_pictures(config: RunConfig, pictures: Sequence[str | Path], output: Path) -> PicturesResult:
    """Encode PNG and JPEG files as `read_picture` makes pages of them.

    Args:
        config: sections model and render are used.
        pictures: at least one.
        output: safetensors of ``features`` [P, n, d] in ``model.precision`` and ``kept`` bool [P, n], the tokens with
            ink; replaced if it is there.

    Raises:
        MissingInputError, DataError: a picture is not there, or none; or there is no encoder.
        ConfigError, ModelError: as `load_encoder`; or the encoder does not fit the configured sizes.
        CheckFailed: features that are not finite.
    """
    read = [read_picture(picture, config.render.page_size) for picture in pictures]
    pages = [picture.page for picture in read]
    encoder = load_encoder(config)
    check_fit(config, encoder)
    features = encode_pages(encoder, pages).to("cpu", DTYPES[config.model.precision])
    for picture, tokens in zip(read, features, strict=True):
        if not tokens.isfinite().all():
            remedy = "Check the encoder's weights; use bfloat16 or float32 as model.precision"
            raise CheckFailed.of(picture.name, "its features are not finite", remedy)
    kept = torch.stack([torch.from_numpy(page.ink_mask(encoder.token_size)) for page in pages])
    write_bytes(output, save({"features": features.contiguous(), "kept": kept}))
    shape = " x ".join(map(str, features.shape))
    summary = [f"{picture.name}: {picture.told}" for picture in read]
    summary.append(f"features {shape} {config.model.precision}, {int(kept.sum())} tokens with ink: {output}")
    return {"output": str(output), "pages": [page.hash for page in pages], "summary": summary}

"""The verb ``encode``: every unique page of the dataset through the encoder once, into the feature store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from ocrmem.config import RunConfig
from ocrmem.console import note, progress_bar
from ocrmem.dataset.hash_index import HashIndex
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.encoder.encoder_pool import EncoderPool
from ocrmem.encoder.feature_store import RowFormat, damaged_row, row_tensor, same
from ocrmem.encoder.feature_writer import FeatureWriter, publish
from ocrmem.encoder.loading import load_encoder
from ocrmem.encoder.overlap import overlapped
from ocrmem.encoder.page_encoding import Encoder, batch_encoder, batch_size, chosen_kernels, encode_pages, packed
from ocrmem.errors import CheckFailed, ConfigError, DataError, Problem
from ocrmem.files import locking
from ocrmem.rendering.page import Page
from ocrmem.verdicts import dataset_warnings, warning_lines

# Range of a feature over pages, in units of the features' root mean square. One black pixel more gives
# 1e-3 with weights at 0.001 and 0.1 at 0.02; the SAM config's 1e-10 gives 1e-38.
_LEAST_RANGE = 1e-4
_EARLY = 16  # pages after which an encoder that looks at none of them is given up


class EncodeResult(TypedDict):
    """Result of `encode_dataset`: pages encoded now, pages of the dataset, rows of the store, and its manifest.

    ``warnings`` are what makes the dataset less than it seems.
    """

    encoded: int
    pages: int
    rows: int
    unused_rows: int
    manifest: dict[str, Any]
    warnings: list[str]
    summary: list[str]


@locking("encode", lambda config: config.paths.features)
def encode_dataset(config: RunConfig, encoder: Encoder | None = None, processes: int = 1) -> EncodeResult:
    """Encode the pages that the store does not hold yet, and publish the store for the dataset.

    Args:
        encoder: an encoder that is loaded already; by default the configured one.
        processes: that encode, each on a GPU of its own; they load the configured encoder.

    Raises:
        ConfigError: the encoder does not fit the configured sizes, or one is given for several processes.
        MissingInputError: there is no dataset, or no encoder.
        DataError: the dataset has no pages, or pages of another size than configured.
        CheckFailed: features that are not finite, or that do not depend on the page.
    """
    dataset = MemoryDataset.open(Path(config.paths.dataset))
    hashes = dataset.page_hashes()
    if not hashes:
        raise DataError.of(
            config.paths.dataset,
            "has no pages, so there is nothing to encode",
            "Lower model.context_threshold so that some history becomes memory, then run `ocrmem render`",
        )
    page_size = config.render.page_size
    if dataset.page_size != page_size or dataset.token_size != config.render.token_size:
        raise DataError.of(
            config.paths.dataset,
            f"has pages of {dataset.page_size} px and tokens of {dataset.token_size} px, the configuration "
            f"says {page_size} and {config.render.token_size}",
            "Run `ocrmem render` again",
        )
    if encoder is not None and processes > 1:
        remedy = "Leave the encoder to the settings, or processes at 1"
        raise ConfigError.of("encode", f"cannot hand a loaded encoder to {processes} processes", remedy)
    if encoder is None:
        encoder = load_encoder(config)
    check_fit(config, encoder)
    format_ = RowFormat(
        weights_sha256=encoder.weights_sha256(),
        features=encoder.features,
        computed_in=str(encoder.dtype).removeprefix("torch."),
        dtype=config.model.precision,
        page_size=page_size,
        tokens=encoder.tokens_for(page_size),
        feature_size=encoder.feature_size,
    )
    directory = Path(config.paths.features)
    with FeatureWriter(directory, format_) as writer:
        missing = writer.missing(hashes)
        _encode_missing(config, dataset, missing, encoder, writer, processes)
        rows = len(writer)
        mean, std = _statistics(dataset, writer, encoder)
        manifest = publish(
            directory,
            format_,
            rows,
            mean,
            std,
            {
                "encoder": config.model.ocr_model_name,
                "revision": config.model.ocr_revision,
                "weights_sha256": format_.weights_sha256,
                "features": format_.features,
                "dtype": format_.dtype,
                "dataset_pages": len(hashes),
                "dataset_pages_sha256": hashes.sha256(),
            },
        )
    unused = rows - len(hashes)
    summary = [
        f"{len(missing)} pages encoded, {len(hashes) - len(missing)} were there already",
        f"features [{rows}, {format_.tokens}, {format_.feature_size}] {format_.dtype} "
        f"({rows * format_.row_bytes / 1e6:.1f} MB) in {directory}",
    ]
    if unused:
        summary.append(f"{unused} rows belong to pages the dataset no longer has; delete {directory} to drop them")
    warnings = dataset_warnings(dataset.manifest["counts"])
    return {
        "encoded": len(missing),
        "pages": len(hashes),
        "rows": rows,
        "unused_rows": unused,
        "manifest": manifest,
        "warnings": warnings,
        "summary": [*summary, *warning_lines(warnings)],
    }


def check_fit(config: RunConfig, encoder: Encoder) -> None:
    """Compare the encoder with the configured sizes.

    Raises:
        ConfigError: names every field that does not fit.
    """
    problems = []
    if encoder.feature_size != config.model.vision_embedding_size:
        problems.append(
            Problem(
                "model.vision_embedding_size",
                f"is {config.model.vision_embedding_size}, but the encoder gives {encoder.feature_size} "
                f"with features {encoder.features!r}",
                f"Set it to {encoder.feature_size}",
            )
        )
    if encoder.token_size != config.render.token_size:
        problems.append(
            Problem(
                "render.token_size",
                f"is {config.render.token_size} px, but the encoder's is {encoder.token_size} px",
                f"Set it to {encoder.token_size} and run `ocrmem render` again",
            )
        )
    if problems:
        raise ConfigError(problems)


def _encode_missing(
    config: RunConfig,
    dataset: MemoryDataset,
    missing: np.ndarray,
    encoder: Encoder,
    writer: FeatureWriter,
    processes: int,
) -> None:
    if not len(missing):
        return
    hashes = dataset.page_hashes()
    step = batch_size(writer.format.page_size, encoder.device)
    span = _PageRange()

    def read(places: np.ndarray) -> tuple[list[str], torch.Tensor]:
        names = [hashes[int(place)] for place in places]
        pages = [dataset.page(name) for name in names]
        for name, page in zip(names, pages, strict=True):
            _check_page(name, page)
        return names, packed(encoder, pages)

    def write(names: list[str], features: torch.Tensor) -> None:
        for row in writer.append(names, features):
            span.add(row)
        if span.pages >= _EARLY:
            span.check()
        bar.advance(len(names))

    here = -(-len(missing) // processes)
    kernels, why = chosen_kernels(config.model.encoder_kernels, encoder, here, writer.format.page_size)
    if why:
        note(why)
    batches = (missing[at : at + step] for at in range(0, len(missing), step))
    with progress_bar("encoding pages", total=len(missing)) as bar:
        if processes == 1:
            encode = batch_encoder(encoder, kernels, step)
            overlapped(batches, read, lambda made: (made[0], encode(made[1])), lambda made: write(*made))
            return
        with EncoderPool(config, processes, step, kernels) as pool:
            overlapped(
                batches,
                read,
                lambda made: (made[0], pool.encode(made[1])),
                lambda made: write(made[0], pool.features(made[1])),
                ahead=2 * processes,
            )


def _check_page(name: str, page: Page) -> None:
    # A page that does not have its name would be found under it for as long as the store lives.
    if page.hash != name:
        raise DataError.of(f"page {name}", "has other pixels than its hash says", "Run `ocrmem render` again")


def _statistics(dataset: MemoryDataset, writer: FeatureWriter, encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation over kept tokens; check that features depend on the page."""
    hashes, format_ = dataset.page_hashes(), writer.format
    total = torch.zeros(format_.feature_size, dtype=torch.float64)
    squares = torch.zeros_like(total)
    count = 0
    span = _PageRange()
    for page, features in zip(hashes, _rows(hashes, writer), strict=True):
        kept = features[torch.from_numpy(np.asarray(dataset.kept(page)))].double()
        total += kept.sum(dim=0)
        squares += kept.square().sum(dim=0)
        count += len(kept)
        span.add(features)
    if span.pages == 1:
        span.add(_blank_features(dataset.page(hashes[0]), encoder, format_))
    span.check()
    mean = total / max(1, count)
    variance = (squares / max(1, count) - mean.square()).clamp_min(0)
    return mean.float(), variance.sqrt().float()


def _rows(pages: HashIndex, writer: FeatureWriter) -> Iterator[torch.Tensor]:
    """Yield the features of these pages, float32 [n, d] each; those of earlier runs are as they were written."""
    format_, journal = writer.format, writer.journal()
    shape, rows = (format_.tokens, format_.feature_size), journal.pages.places(pages)
    with progress_bar("checking features", total=len(rows)) as bar, writer.rows_path.open("rb") as file:
        # Read, not mapped: what was mapped once would count as memory of this process to the end.
        for row in rows.tolist():
            file.seek(row * format_.row_bytes)
            content = bytearray(file.read(format_.row_bytes))
            if not same(journal, row, content):
                raise damaged_row(writer.rows_path, journal.pages[row])
            values = np.frombuffer(content, format_.numpy_dtype).reshape(shape)
            yield row_tensor(values, format_).float()
            bar.advance()


def _blank_features(page: Page, encoder: Encoder, format_: RowFormat) -> torch.Tensor:
    # One page alone cannot differ from another: an empty one is its counterpart.
    blank = Page(np.zeros_like(page.bits), page.atlas_version)
    return encode_pages(encoder, [blank])[0].to("cpu", format_.torch_dtype).float()


class _PageRange:
    """The range over pages of the features at one place and dimension."""

    def __init__(self) -> None:
        self.pages = 0
        self._low: torch.Tensor | None = None
        self._high: torch.Tensor | None = None
        self._squares = 0.0

    def add(self, features: torch.Tensor) -> None:
        """Add a page, float32 [n, d]."""
        self._low = features if self._low is None else torch.minimum(self._low, features)
        self._high = features if self._high is None else torch.maximum(self._high, features)
        self._squares += float(features.double().square().mean())
        self.pages += 1

    def check(self) -> None:
        """Compare the greatest range over pages with the features' root mean square.

        Raises:
            CheckFailed: the features do not depend on the page.
        """
        relative = 0.0
        if self._low is not None and self._high is not None and self._squares:
            relative = float((self._high - self._low).max()) / (self._squares / self.pages) ** 0.5
        if relative < _LEAST_RANGE:
            raise CheckFailed.of(
                "encode",
                f"features do not depend on the page: over {self.pages} different pages they vary by "
                f"{relative:.1e} of their size",
                "Load trained weights; a random encoder needs SAM's initializer_range at about 0.02 "
                "(transformers' default is 1e-10)",
            )

"""Appending rows to a feature store so that a kill at any moment costs no batch that was written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import save

from ocrmem.dataset.hash_index import HashIndex
from ocrmem.encoder.feature_store import FORMAT, Journal, RowFormat, read_journal
from ocrmem.errors import CheckFailed
from ocrmem.facts import MANIFEST
from ocrmem.files import locked, naming, replacing_file, write_bytes, write_json
from ocrmem.json_files import with_sha256


class FeatureWriter:
    """Appends batches to the rows file of a format and to its journal. A context manager.

    A batch is written and synced before its line enters the journal, so the journal never promises a row
    that is not there. Entering cuts off what an interrupted run left behind the last whole batch; since
    batches start where the last run's ended, the finished file has the bytes of an uninterrupted run.
    A file that shares its bytes with another place (DVC links outputs to its cache), or may not be written, is
    replaced by a copy before the first byte of it changes.

    Raises:
        BusyError: another process is writing to this store.
    """

    def __init__(self, directory: Path, format_: RowFormat) -> None:
        self.format = format_
        self.rows_path = directory / format_.rows_name
        self.journal_path = directory / format_.journal_name
        self._found = HashIndex.of(())
        self._count = 0
        self._open = ExitStack()
        self._appending: tuple[BinaryIO, BinaryIO] | None = None

    def __enter__(self) -> FeatureWriter:
        self._open.enter_context(locked(self.rows_path.parent, "encode"))
        try:
            if not self.rows_path.exists():
                write_bytes(self.rows_path, b"")
            if not self.journal_path.exists():
                self._begin_journal()
            self._cut()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __len__(self) -> int:
        """Return the number of rows, those of this run included."""
        return self._count

    def missing(self, pages: HashIndex) -> np.ndarray:
        """Return the places of those pages that had no row when the block was entered, int64 [m]."""
        return np.flatnonzero(self._found.places(pages) < 0)

    def journal(self) -> Journal:
        """Return what is known of the rows, those of this run included."""
        return read_journal(self.journal_path)

    def append(self, pages: Sequence[str], features: torch.Tensor) -> torch.Tensor:
        """Write one batch.

        Args:
            pages: hashes, none of them in the store yet.
            features: [len(pages), n, d] of any float dtype.

        Returns:
            The features as stored, float32 on the CPU.

        Raises:
            CheckFailed: a value is not finite, in the stored dtype; names the page. Nothing of the batch is
                written.
        """
        stored = features.detach().to("cpu", self.format.torch_dtype).contiguous()
        finite = stored.isfinite().flatten(1).all(dim=1)
        if not bool(finite.all()):
            page = pages[int((~finite).nonzero()[0])]
            raise CheckFailed.of(
                f"encode: page {page}",
                f"features are not finite in {self.format.dtype}",
                "Check the encoder's weights; with float16 set model.precision to bfloat16 or float32",
            )
        rows, journal = self._files()
        written = stored.view(torch.uint8).numpy().tobytes()
        for path, file, content in (
            (self.rows_path, rows, written),
            (self.journal_path, journal, _line(pages, written, self.format.row_bytes)),
        ):
            with naming(path):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self._count += len(pages)
        return stored.float()

    def _files(self) -> tuple[BinaryIO, BinaryIO]:
        """Open both files to append, once something is to be written."""
        if self._appending is None:
            _own(self.rows_path)
            _own(self.journal_path)
            self._appending = (
                self._open.enter_context(self.rows_path.open("ab")),
                self._open.enter_context(self.journal_path.open("ab")),
            )
        return self._appending

    def _begin_journal(self) -> None:
        """Begin with the rows of an earlier ocrmem, which kept no hashes of them; they are taken as they are."""
        old = self.rows_path.with_name(self.format.old_journal_name)
        lines = old.read_text("ascii", "replace").splitlines(keepends=True) if old.is_file() else []
        with replacing_file(self.journal_path) as target, self.rows_path.open("rb") as rows:
            for line in lines:
                pages = line.split()
                content = rows.read(len(pages) * self.format.row_bytes)
                if not line.endswith("\n") or len(content) < len(pages) * self.format.row_bytes:
                    break
                target.write(_line(pages, content, self.format.row_bytes))

    def _cut(self) -> None:
        whole = self.rows_path.stat().st_size // self.format.row_bytes
        kept, count = 0, 0
        with self.journal_path.open("rb") as lines:
            for line in lines:
                pages = len(line.split()) // 2
                if not line.endswith(b"\n") or count + pages > whole:
                    break
                kept += len(line)
                count += pages
        sizes = (count * self.format.row_bytes, kept)
        if sizes != (self.rows_path.stat().st_size, self.journal_path.stat().st_size):
            rows, journal = self._files()
            journal.truncate(kept)
            rows.truncate(sizes[0])
        self._found = self.journal().pages
        self._count = count


def publish(
    directory: Path, format_: RowFormat, rows: int, mean: torch.Tensor, std: torch.Tensor, about: dict[str, Any]
) -> dict[str, Any]:
    """Write statistics and manifest.json, then delete what the manifest does not name.

    Args:
        rows: of the rows file.
        mean, std: float32 [d].
        about: further fields of the manifest.

    Returns:
        The manifest.
    """
    content = save({"mean": mean, "std": std})
    statistics = f"statistics-{_sha256(content)[:12]}.safetensors"
    write_bytes(directory / statistics, content)
    manifest = {
        "version": FORMAT,
        **about,
        "format": asdict(format_),
        "shape": [rows, format_.tokens, format_.feature_size],
        "rows": format_.rows_name,
        "pages": format_.journal_name,
        "journal_sha256": read_journal(directory / format_.journal_name, rows).sha256(),
        "statistics": statistics,
        "statistics_sha256": _sha256(content),
    }
    write_json(directory / MANIFEST, with_sha256(manifest))
    named = {format_.rows_name, format_.journal_name, statistics}
    for pattern in ("rows-*.bin", "rows-*.txt", "statistics-*.safetensors"):
        for path in directory.glob(pattern):
            if path.name not in named:
                path.unlink()
    return manifest


def _line(pages: Sequence[str], content: bytes, size: int) -> bytes:
    """Return the journal's line for a batch: each page, and the sha256 of its row of ``size`` bytes."""
    hashes = (_sha256(content[at : at + size]) for at in range(0, len(pages) * size, size))
    return (" ".join(f"{page} {digest}" for page, digest in zip(pages, hashes, strict=True)) + "\n").encode("ascii")


def _own(path: Path) -> None:
    """Replace a file whose bytes are another place's too, or that may not be written, by a copy."""
    if path.is_symlink() or path.stat().st_nlink > 1 or not os.access(path, os.W_OK):
        with path.open("rb") as source, replacing_file(path) as target:
            shutil.copyfileobj(source, target, 1 << 20)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

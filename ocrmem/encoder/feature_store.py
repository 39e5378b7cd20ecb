"""The feature store: what the encoder made of every unique page, memory-mapped.

A directory of four files, which manifest.json names:

- ``rows-ID.bin``: [rows, n, d] little-endian float32, or the bits of bfloat16 or float16 as uint16. ID says
  which encoder, feature mode, page size and dtype made them, so rows of two encoders never share a file.
- ``rows-ID.sha256.txt``: for the rows in their order the page's hash and the sha256 of the row, a line for each batch.
- ``statistics-HASH.safetensors``: ``mean`` and ``std`` float32 [d] over the dataset's kept tokens.
- ``manifest.json``, replaced last: until then readers see the store as it was. It has the hashes of the other two.

A store is verified when it is opened, once a process; reading a feature costs nothing more.

Rows are only ever appended. Where a dataset grew, the missing pages are encoded and nothing else; rows of
pages that it no longer has stay, unused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from ocrmem.dataset.hash_index import DIGEST, HashIndex
from ocrmem.encoder.device import DTYPES
from ocrmem.errors import MissingInputError, OcrMemError
from ocrmem.facts import MANIFEST
from ocrmem.files import Identity, hashing_threads, identity_of, sha256_json
from ocrmem.json_files import FeatureManifest, read_json

FORMAT = 2
_AGAIN = "Delete the directory and run `ocrmem encode` again"
_OLDER = "Run `ocrmem encode`: it keeps the rows, also those of an earlier ocrmem, and writes what is missing"
_AT_A_TIME = 8 << 20  # bytes of rows that a thread hashes in one piece
_verified: set[tuple[Identity, str]] = set()


@dataclass(frozen=True)
class RowFormat:
    """All that decides what a row holds. Two equal formats may share a file.

    Attributes:
        weights_sha256: of the encoder.
        features: ``sum`` or ``concat``.
        computed_in: dtype of the encoder's arithmetic.
        dtype: dtype of the stored features.
        page_size: px.
        tokens: vision tokens of a page.
        feature_size: width of a token.
    """

    weights_sha256: str
    features: str
    computed_in: str
    dtype: str
    page_size: int
    tokens: int
    feature_size: int

    @property
    def identity(self) -> str:
        """Twelve hex digits that name the format."""
        return sha256_json(asdict(self))[:12]

    @property
    def numpy_dtype(self) -> np.dtype:
        # numpy has no bfloat16: 16-bit values are stored and mapped as their bits.
        return np.dtype("<f4" if self.torch_dtype is torch.float32 else "<u2")

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        return self.tokens * self.feature_size * self.numpy_dtype.itemsize

    @property
    def rows_name(self) -> str:
        return f"rows-{self.identity}.bin"

    @property
    def journal_name(self) -> str:
        return f"rows-{self.identity}.sha256.txt"

    @property
    def old_journal_name(self) -> str:
        """The journal of format 1, which had no hashes of rows."""
        return f"rows-{self.identity}.txt"


class FeatureStore:
    """Read access to encoded pages. Make one with `open`.

    Attributes:
        path: the store's directory.
        manifest: what manifest.json says: encoder name and revision, hash of weights, dtype, shape.
        mean: float32 [d] over the dataset's kept tokens.
        std: float32 [d], of the population; 0 where a dimension never changes.
    """

    def __init__(
        self, path: Path, manifest: FeatureManifest, mean: torch.Tensor, std: torch.Tensor, *, verify: bool
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.mean = mean
        self.std = std
        self.format = RowFormat(**manifest["format"])
        count = manifest["shape"][0]
        journal_path, rows_path = path / self.format.journal_name, path / self.format.rows_name
        journal = read_journal(journal_path, count)
        if len(journal) < count or rows_path.stat().st_size < count * self.format.row_bytes:
            raise _broken(path, f"has fewer rows than the {count} of its manifest")
        if journal.sha256() != manifest["journal_sha256"]:
            raise _broken(journal_path, "was changed or damaged: it has not the sha256 of the manifest")
        if verify:
            verify_rows(rows_path, self.format, journal)
        self._names = journal.pages
        self._rows = map_rows(rows_path, self.format, count)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        pages: Sequence[str] | None = None,
        feature_size: int | None = None,
        verify: bool = True,
    ) -> FeatureStore:
        """Open a store that `ocrmem encode` wrote, if every file of it has its hash.

        Args:
            pages: the dataset's page hashes in stored order; given, the store must be made for just them.
            feature_size: the width that the model expects; given, the store must have it.
            verify: compare the rows with their hashes; without, only manifest, journal and statistics.

        Raises:
            MissingInputError: no store there, a broken or changed one, or one made for something else.
        """
        path = Path(path)
        manifest = read_json(path / MANIFEST, FeatureManifest, made_by="encode", remedy=_OLDER)
        try:
            content = (path / manifest["statistics"]).read_bytes()
            if hashlib.sha256(content).hexdigest() != manifest["statistics_sha256"]:
                message = "was changed or damaged: it has not the sha256 of the manifest"
                raise _broken(path / manifest["statistics"], message)
            statistics = load(content)
            store = cls(path, manifest, statistics["mean"], statistics["std"], verify=verify)
        except (OSError, KeyError, SafetensorError) as error:
            raise _broken(path, f"is incomplete ({type(error).__name__}: {error})") from None
        if feature_size is not None and store.feature_size != feature_size:
            raise MissingInputError.of(
                str(path),
                f"features are {store.feature_size} wide, the model expects {feature_size}",
                "Set model.features and model.vision_embedding_size as they belong together "
                "(1024 for sum, 2048 for concat with DeepSeek-OCR), then run `ocrmem encode`",
            )
        names = pages if pages is None or isinstance(pages, HashIndex) else HashIndex.of(pages)
        if names is not None and manifest["dataset_pages_sha256"] != names.sha256():
            missing = int((store._names.places(names) < 0).sum())
            raise MissingInputError.of(
                str(path),
                f"was made for another dataset ({missing} of {len(names)} pages are missing)",
                "Run `ocrmem encode`; it encodes only what is missing",
            )
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process maps the file itself: pickling the map would copy the whole store. What this process has
        # verified it takes as it is.
        return (partial(FeatureStore.open, verify=False), (self.path,))

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, page: object) -> bool:
        return page in self._names

    @property
    def feature_size(self) -> int:
        """Width of one vision token."""
        return self.format.feature_size

    @property
    def tokens(self) -> int:
        """Vision tokens of a page."""
        return self.format.tokens

    @property
    def dtype(self) -> torch.dtype:
        return self.format.torch_dtype

    def get(self, page: str) -> torch.Tensor:
        """Return the features of a page by its hash: [n, d] in the store's dtype, a copy.

        Raises:
            MissingInputError: the page was never encoded.
        """
        return row_tensor(self._rows[self._find(page)].copy(), self.format)

    def gather(self, pages: Sequence[str], kept: Sequence[np.ndarray] | None = None) -> torch.Tensor:
        """Gather the features of the kept tokens of several pages, one after the other.

        Args:
            pages: hashes.
            kept: a bool [n] for each page; None: every token.

        Returns:
            [M, d] in the store's dtype, M the number of kept tokens.
        """
        tokens = [np.arange(self.tokens)] * len(pages) if kept is None else [np.flatnonzero(mask) for mask in kept]
        gathered = np.empty((sum(map(len, tokens)), self.feature_size), self.format.numpy_dtype)
        start = 0
        for page, wanted in zip(pages, tokens, strict=True):
            place = gathered[start : start + len(wanted)]
            # With mode "raise" numpy would fill a copy first; a mask cannot be out of range.
            np.take(self._rows[self._find(page)], wanted, axis=0, out=place, mode="clip")
            start += len(wanted)
        return row_tensor(gathered, self.format)

    def _find(self, page: str) -> int:
        row = self._names.find(page)
        if row is None:
            raise MissingInputError.of(
                f"{self.path}: page {page}", "was never encoded", "Run `ocrmem encode`; it encodes what is missing"
            )
        return row


def row_tensor(values: np.ndarray, format_: RowFormat) -> torch.Tensor:
    """Return stored values as a tensor of the stored dtype. It shares their memory, which must not be the map's."""
    if format_.torch_dtype is torch.float32:
        return torch.from_numpy(values)
    # torch has few operations on uint16, so the bits travel as int16.
    return torch.from_numpy(values.view(np.int16)).view(format_.torch_dtype)


def map_rows(path: Path, format_: RowFormat, rows: int) -> np.ndarray:
    """Map the rows of a file as a read-only map [rows, n, d]."""
    shape = (rows, format_.tokens, format_.feature_size)
    if not rows:  # an empty file cannot be mapped
        return np.empty(shape, format_.numpy_dtype)
    # As a plain array: every row taken of a memmap is one more object that costs more than the row's bytes.
    return np.asarray(np.memmap(path, dtype=format_.numpy_dtype, mode="r", shape=shape))


class Journal:
    """What a store says of its rows.

    Attributes:
        pages: the page of each row.
        digests: uint8 [rows, 32]; the sha256 of each row.
    """

    def __init__(self, pairs: np.ndarray) -> None:
        self.pages = HashIndex(np.ascontiguousarray(pairs[:, 0]))
        self.digests = np.ascontiguousarray(pairs[:, 1])

    def __len__(self) -> int:
        return len(self.pages)

    def sha256(self) -> str:
        """Return the hash of both columns."""
        return hashlib.sha256(self.pages.digests.tobytes() + self.digests.tobytes()).hexdigest()


def read_journal(path: Path, count: int | None = None) -> Journal:
    """Read the journal of the rows that are on disk whole. A line that a kill cut short does not count.

    Args:
        count: only so many rows, from the first.

    Raises:
        MissingInputError: the file holds something else.
    """
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        whole = b""
    try:
        pairs = np.frombuffer(bytes.fromhex(whole.decode("ascii")), np.uint8).reshape(-1, 2, DIGEST)
    except ValueError as error:
        raise _broken(path, f"is not a list of page hashes ({error})") from None
    return Journal(pairs[:count])


def verify_rows(path: Path, format_: RowFormat, journal: Journal) -> None:
    """Compare rows with their hashes, once a process; the processes of one machine share the rows of a run.

    Raises:
        MissingInputError: a row has other bytes; names its page.
    """
    identity = identity_of(path)
    known = (identity, journal.sha256()) if identity else None
    if known in _verified:
        return
    # As torchrun sets them: each process of this machine takes its part, and one that fails ends the run.
    part, parts = int(os.environ.get("LOCAL_RANK", 0)), max(1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    step = max(1, _AT_A_TIME // format_.row_bytes)
    starts = range(0, len(journal), step)[part::parts]
    with path.open("rb") as file, ThreadPoolExecutor(hashing_threads()) as pool:

        def compare(start: int) -> int | None:
            stop = min(start + step, len(journal))
            size = format_.row_bytes
            content = memoryview(os.pread(file.fileno(), (stop - start) * size, start * size))
            rows = range(start, stop)
            pieces = (content[(row - start) * size : (row - start + 1) * size] for row in rows)
            return next((row for row, piece in zip(rows, pieces, strict=True) if not same(journal, row, piece)), None)

        damaged = [row for row in pool.map(compare, starts) if row is not None]
    if damaged:
        raise damaged_row(path, journal.pages[damaged[0]])
    if known:
        _verified.add(known)


def same(journal: Journal, row: int, content: bytes | bytearray | memoryview) -> bool:
    """Return whether a row's bytes have the hash that the journal has for them."""
    return hashlib.sha256(content).digest() == journal.digests[row].tobytes()


def damaged_row(path: Path, page: str) -> OcrMemError:
    """Return the error of a row that is not as it was written."""
    return _broken(path, f"was changed or damaged: the features of page {page} have not their sha256")


def _broken(path: Path, what: str) -> OcrMemError:
    return MissingInputError.of(str(path), what, _AGAIN)

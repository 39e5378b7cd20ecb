"""TeacherLogits: what a teacher said about each token of an answer, kept on disk so that it has to say it once."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ocrmem.errors import TrainingError


class TopK(NamedTuple):
    """The most likely next tokens at each supervised position of one answer.

    Attributes:
        ids: int32 [n, k].
        log_probs: float32 [n, k].
    """

    ids: np.ndarray
    log_probs: np.ndarray


class TeacherLogits:
    """A store by content: the key of an entry is a hash of all that it depends on.

    Each process writes a file of its own and reads all of them, so a run of any number of processes finds what
    another one left. An entry is there or it is not, also after a kill.

    Args:
        directory: made when the first entry is put.
        number: of this process.
    """

    def __init__(self, directory: Path, number: int = 0) -> None:
        self.directory = directory
        self._own = directory / f"logits-{number}.sqlite"
        self._files: dict[Path, sqlite3.Connection] = {}

    def get(self, keys: Sequence[str]) -> dict[str, TopK]:
        """Return the entries of those keys that are there."""
        found: dict[str, TopK] = {}
        for path in sorted({*self.directory.glob("logits-*.sqlite"), *self._files}):
            for key in keys:
                if key not in found and (row := self._ask(path, key)) is not None:
                    width, ids, log_probs = row
                    found[key] = TopK(
                        np.frombuffer(ids, "<i4").reshape(-1, width), np.frombuffer(log_probs, "<f4").reshape(-1, width)
                    )
        return found

    def put(self, entries: Mapping[str, TopK]) -> None:
        """Add entries, all or none.

        Raises:
            TrainingError: they cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            connection = self._open(self._own)
            rows = [(key, e.ids.shape[1], e.ids.tobytes(), e.log_probs.tobytes()) for key, e in entries.items()]
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS logits (key TEXT PRIMARY KEY, width INTEGER, ids BLOB, log_probs BLOB)"
                )
                connection.executemany("INSERT OR REPLACE INTO logits VALUES (?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise TrainingError.of(
                str(self._own),
                f"the teacher's logits cannot be written ({error})",
                "Free space or make it writable, then run `ocrmem train --resume`",
            ) from None

    def _ask(self, path: Path, key: str) -> tuple[int, bytes, bytes] | None:
        try:
            rows = self._open(path).execute("SELECT width, ids, log_probs FROM logits WHERE key = ?", (key,))
            row: tuple[int, bytes, bytes] | None = rows.fetchone()
        except sqlite3.OperationalError:  # another process has made the file and not yet its table
            return None
        except sqlite3.DatabaseError as error:
            raise TrainingError.of(
                str(path), f"holds no teacher's logits ({error})", "Delete the file; the logits are computed again"
            ) from None
        return row

    def _open(self, path: Path) -> sqlite3.Connection:
        if path not in self._files:
            self._files[path] = sqlite3.connect(path, timeout=60)
        return self._files[path]

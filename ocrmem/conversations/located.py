"""Conversations left on disk: the places of the good lines, which are read again when asked for.

A conversation takes twenty bytes of memory, however long it is.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from ocrmem.conversations.lines import Line
from ocrmem.conversations.parse import parse_line
from ocrmem.conversations.sources import shown_path, split_of
from ocrmem.conversations.types import Conversation
from ocrmem.errors import DataError
from ocrmem.families import Family


class StoredConversations:
    """The good lines of data files, in their order.

    Args:
        files: the files, in order.
        fraction: of the conversations of training files is held out.
        family: of the base model, for `parse_line`.
    """

    def __init__(self, files: Sequence[Path], fraction: float, family: Family) -> None:
        self.files, self.fraction, self.family = files, fraction, family
        self._file, self._number, self._start, self._size = array("I"), array("I"), array("Q"), array("I")

    def add(self, file: int, line: Line) -> None:
        """Add a good line of the file with this number."""
        self._file.append(file)
        self._number.append(line.number)
        self._start.append(line.start)
        self._size.append(line.size)

    def __len__(self) -> int:
        return len(self._file)

    def bytes_of(self, rows: range) -> int:
        """Return the size of some conversations on disk."""
        return sum(self._size[rows.start : rows.stop])

    def read(self, rows: range) -> tuple[Conversation, ...]:
        """Read some conversations.

        Raises:
            DataError: a file has changed since its lines were located.
        """
        return tuple(self._read(row) for row in rows)

    def _read(self, row: int) -> Conversation:
        file = self.files[self._file[row]]
        place = f"{shown_path(file)}:{self._number[row]}"
        try:
            with file.open("rb") as handle:
                handle.seek(self._start[row])
                parsed = parse_line(handle.read(self._size[row]), place, self.family)
        except OSError:
            parsed = None
        if parsed is None or parsed.problems:
            raise DataError.of(place, "has changed while it was being read", "Run the command again")
        return Conversation(parsed.id, parsed.messages, split_of(file, parsed.id, self.fraction), place)

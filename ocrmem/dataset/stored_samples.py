"""The samples of a split where they lie on disk: any of them at any time, few of them in memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ocrmem.conversations import Message
from ocrmem.dataset.schema import Sample, read_samples, samples_schema
from ocrmem.dataset.shards import open_shard, reading
from ocrmem.json_files import Shard

if TYPE_CHECKING:
    import pyarrow as pa

_CACHED_BYTES = 24 << 20  # of Arrow tables; small datasets are decoded once, large ones as they are asked for
_SYSTEMS_READ = 100  # samples, to know the usual system message
# Read as a dictionary: a message that many samples repeat is in memory once a row group.
_REPEATED = ["history.list.element.content", "prompt.list.element.content"]


@dataclass
class _Group:
    """A row group in memory, and its samples as far as they were asked for."""

    table: pa.Table
    samples: dict[int, Sample] = field(default_factory=dict)
    messages: dict[tuple[str, str], Message] = field(default_factory=dict)

    def sample(self, row: int) -> Sample:
        found = self.samples.get(row)
        if found is None:
            found = self.samples[row] = read_samples(self.table.slice(row, 1), self.messages)[0]
        return found


class StoredSamples(Sequence[Sample]):
    """A sequence of samples that reads a row group of its shards when a sample of it is asked for.

    What it holds is the last groups read, up to a bound: its size does not grow with the number of samples.
    Iterating reads each group once. It can be pickled: a copy opens the files itself.

    Args:
        root: the dataset's directory.
        shards: the manifest's lines of the split, in order.
    """

    def __init__(self, root: Path, shards: Sequence[Shard]) -> None:
        self._root = root
        self._shards = shards
        self._places: list[tuple[int, int]] = []  # file and row group, of every group
        starts = [0]
        for number in range(len(shards)):
            metadata = self._open(number).metadata
            for group in range(metadata.num_row_groups):
                self._places.append((number, group))
                starts.append(starts[-1] + metadata.row_group(group).num_rows)
        self._starts = np.array(starts)
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (StoredSamples, (self._root, self._shards))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._group(number).sample(row - int(self._starts[number]))

    def __iter__(self) -> Iterator[Sample]:
        for number in range(len(self._places)):
            yield from read_samples(self._read(number))

    def column(self, name: str) -> np.ndarray:
        """Return one number a sample, such as ``memory_tokens``, without reading the samples.

        Returns:
            int32 [n]; -1 where there is none.
        """
        parts = []
        for number, shard in enumerate(self._shards):
            with reading(self._root / shard["path"]):
                parts.append(self._open(number).read(columns=[name]).column(name).fill_null(-1).to_numpy())
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def usual_system(self) -> str | None:
        """Return the system message that most samples have, of some evenly spaced ones; None if most have none."""
        chosen = range(0, len(self), max(1, len(self) // _SYSTEMS_READ))
        first = (self[index].prompt[0] for index in chosen)
        counts = Counter(message.content if message.role == "system" else None for message in first)
        return counts.most_common(1)[0][0] if counts else None

    def page_counts(self) -> np.ndarray:
        """Return how many pages each sample has, without reading the samples: int32 [n]."""
        import pyarrow.compute as pc

        parts = [
            pc.list_value_length(self._open(number).read(columns=["pages"]).column("pages")).to_numpy()
            for number in range(len(self._shards))
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _group(self, number: int) -> _Group:
        """Return a row group, of the last ones read where it is among them."""
        group = self._groups.get(number)
        if group is None:
            group = self._groups[number] = _Group(self._read(number))
            self._bytes += group.table.nbytes
            while self._bytes > _CACHED_BYTES and len(self._groups) > 1:
                _, oldest = self._groups.popitem(last=False)
                self._bytes -= oldest.table.nbytes
        else:
            self._groups.move_to_end(number)
        return group

    def _read(self, number: int) -> pa.Table:
        file, group = self._places[number]
        with reading(self._root / self._shards[file]["path"]):
            return self._open(file).read_row_group(group, use_threads=False)

    def _open(self, number: int) -> Any:
        shard = self._shards[number]
        return open_shard(self._root, shard, samples_schema(), _REPEATED)

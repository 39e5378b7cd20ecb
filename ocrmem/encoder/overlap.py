"""Reading, computing and writing beside each other, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
AHEAD = 2  # each stage has one to take when it is done


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Read], Made],
    write: Callable[[Made], None],
    ahead: int = AHEAD,
) -> None:
    """Read items in a thread, compute in this one, and write in another; at most a few of them are in memory.

    What is written is an uninterrupted beginning of the items: after an error of any of the three, which is raised
    here, what was computed before it is still written, and nothing behind it.

    Args:
        ahead: items that are read, and written, while one is computed.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        writing: deque[Future[None]] = deque()
        for found in _ahead(reader, read, items, ahead):
            before = writing[-1] if writing else None
            writing.append(writer.submit(_write_after, before, write, compute(found)))
            if len(writing) > ahead:
                writing.popleft().result()
        for future in writing:
            future.result()


def _ahead(
    reader: ThreadPoolExecutor, read: Callable[[Item], Read], items: Iterable[Item], ahead: int
) -> Iterator[Read]:
    waiting = iter(items)
    reading = deque(reader.submit(read, item) for item in islice(waiting, ahead))
    while reading:
        found = reading.popleft().result()
        reading.extend(reader.submit(read, item) for item in islice(waiting, 1))
        yield found


def _write_after(before: Future[None] | None, write: Callable[[Made], None], made: Made) -> None:
    if before is not None:
        before.result()  # it has ended, there is one writer; where it failed, so does this one
    write(made)

"""Three stages beside each other: everything in order, little of it in memory, and nothing behind an error."""

from __future__ import annotations

import threading

import pytest

from ocrmem.encoder.overlap import AHEAD, overlapped


class Fault(Exception):
    """Raised by a stage."""


class Line:
    """Stages that note what they were given; the stage ``fails`` raises at item ``at``."""

    def __init__(self, fails: str | None = None, at: int = -1) -> None:
        self.fails, self.at = fails, at
        self.seen: dict[str, list[int]] = {"read": [], "compute": [], "write": []}
        self.furthest = 0
        self.threads: set[tuple[str, int]] = set()

    def stage(self, name: str, item: int) -> int:
        self.threads.add((name, threading.get_ident()))
        if name == self.fails and item == self.at:
            raise Fault(name)
        self.seen[name].append(item)
        self.furthest = max(self.furthest, len(self.seen["read"]) - len(self.seen["write"]))
        return item

    def run(self, count: int) -> None:
        overlapped(
            range(count),
            lambda item: self.stage("read", item),
            lambda item: self.stage("compute", item),
            lambda item: self.stage("write", item) and None,
        )


@pytest.mark.parametrize("count", [0, 1, AHEAD, 50])
def test_every_item_goes_through_every_stage_in_order_each_in_a_thread_of_its_own(count: int) -> None:
    line = Line()
    line.run(count)
    assert set(map(tuple, line.seen.values())) == {tuple(range(count))}
    if count:
        assert len({thread for _, thread in line.threads}) == len(line.threads) == 3


def test_no_more_than_a_few_items_are_in_memory() -> None:
    line = Line()
    line.run(200)
    assert line.furthest <= 2 * AHEAD + 2


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("at", [0, 7, 19])
def test_after_an_error_what_came_before_it_is_written_and_nothing_behind_it(stage: str, at: int) -> None:
    line = Line(stage, at)
    with pytest.raises(Fault, match=stage):
        line.run(20)
    assert line.seen["write"] == list(range(at))

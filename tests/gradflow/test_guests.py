"""The doctor on other people's models: right about every healthy and every sick one, and at the right line."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from support import guests, library_guests
from support.guests import GuestCase

from ocrmem import gradflow

CASES = guests.HEALTHY | guests.SICK | library_guests.HEALTHY | library_guests.SICK


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_other_peoples_models(case: GuestCase) -> None:
    model, batch = case.make()
    report = gradflow.check(model, batch, case.trainable)
    verdict = report.verdict()
    assert tuple(report.codes) == case.codes, verdict
    if not case.codes:
        assert verdict[0] == "all checks passed"
        return
    first = report.findings[0]
    assert case.says in first.evidence, verdict
    assert case.remedy in first.remedy, verdict
    assert not case.never or case.never not in " ".join(verdict), verdict
    if case.module is not None:
        assert first.module == case.module, verdict
    if case.within is not None:
        file, _, line = first.source.rpartition(":")
        lines, start = inspect.getsourcelines(case.within)
        assert Path(file).name == Path(inspect.getsourcefile(case.within) or "").name, verdict
        assert start <= int(line) < start + len(lines), verdict

"""Each fault is named by its code and its place, on a MEMModel and on a plain three-part module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.faults import BUILDERS, FAULTS, HEALTHY, FaultCase, Parts, memory_model, plain

from ocrmem import gradflow
from ocrmem.gradflow.report import Report


def prefix_of(parts: Parts, part: str) -> str:
    module = getattr(parts, part)
    return next(path for path, candidate in parts.model.named_modules() if candidate is module)


def run(parts: Parts, case: FaultCase) -> Report:
    options = dict(case.options)
    settings = {name: options.pop(name) for name in ("context_threshold", "max_seq_length") if name in options}
    if settings:
        config = parts.model.config = getattr(parts.model, "config", None) or SimpleNamespace()
        for name, value in settings.items():
            setattr(config, name, parts.batch["labels"].shape[1] if isinstance(value, str) else value)
    return gradflow.check(parts.model, parts.batch, "proj", **options)


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_each_fault_is_named_by_code_and_place(build: Any, case: FaultCase) -> None:
    parts = build()
    case.inject(parts)
    report = run(parts, case)
    assert report.codes == [case.code], report.verdict()
    finding = report.findings[0]
    assert not report.ok
    assert case.evidence in finding.evidence
    assert finding.remedy
    if case.part:
        assert finding.module.startswith(prefix_of(parts, case.part)), finding.place


@pytest.mark.parametrize(("build", "claimed"), [(memory_model, True), (plain, False)])
def test_that_memory_is_missing_is_said_of_models_that_describe_their_memory_alone(build: Any, claimed: bool) -> None:
    parts = build()
    parts.batch = parts.text_batch
    (finding,) = gradflow.check(parts.model, parts.batch).findings
    assert ("no memory in the batch" in finding.evidence) == claimed
    assert ("sample with memory" in finding.remedy) == claimed


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_gives_no_finding(build: Any, name: str) -> None:
    parts = build()
    HEALTHY[name](parts)
    report = gradflow.check(parts.model, parts.batch, "proj")
    assert report.findings == [], report.verdict()
    assert report.verdict()[0] == "all checks passed"

"""The result of `check`: verdict, findings and the chain, as text, JSON and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import jinja2

from ocrmem.gradflow.batch_facts import BatchFacts
from ocrmem.gradflow.catalogue import Finding
from ocrmem.gradflow.chain import ChainNode, chain_of, finite_or_none, tree_lines
from ocrmem.gradflow.parts import Part
from ocrmem.gradflow.probe import Recording

# The template is here; the base and stylesheet that it shares with other reports are files beside this package, which
# are read, so that nothing of ocrmem is imported.
_FOLDER = Path(__file__).parent
SCHEMA = "urn:ocrmem:gradflow-report:1"


class ReportDict(TypedDict):
    """A report as JSON holds it; report.schema.json, beside this module, describes every field."""

    schema: str
    ok: bool
    trainable: list[str]
    loss: float | None
    loss_requires_grad: bool
    loss_grad_fn: str | None
    forward_error: str | None
    backward_error: str | None
    batch: dict[str, int | None]
    findings: list[dict[str, str]]
    parameters: list[dict[str, Any]]
    chain: list[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class Report:
    """The result of one check.

    Attributes:
        findings: one for each cause, the nearest first; empty when all is well.
        recording: every module call and parameter, as `Probe` saw them.
        facts: what the batch held.
        parts: what is to be trained.
    """

    findings: list[Finding]
    recording: Recording
    facts: BatchFacts
    parts: tuple[Part, ...]

    @property
    def errors(self) -> list[Finding]:
        """The findings that are not mere warnings."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def faults(self) -> list[tuple[str, str, str]]:
        """Return place, message and remedy of every error."""
        return [
            (error.place, f"{error.code} {error.title}: {error.evidence}", error.remedy.rstrip("."))
            for error in self.errors
        ]

    @property
    def ok(self) -> bool:
        """True when no finding is an error."""
        return not self.errors

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]

    def chain(self) -> list[ChainNode]:
        """Return the modules from the inputs to the loss, with the state of the gradient in each."""
        return chain_of(self.recording, self.findings, self.parts)

    def measured(self) -> list[str]:
        """Say what forward and backward gave, line by line."""
        record, facts = self.recording, self.facts
        if record.forward_error:
            return [f"forward failed: {record.forward_error}", *record.notes]
        lines = [
            f"loss {record.loss:.4g} requires_grad {record.loss_requires_grad} grad_fn {record.loss_grad_fn or None}",
            f"backward failed: {record.backward_error}" if record.backward_error else "backward ok",
        ]
        norms = [p.gradient_norm for p in record.trained if p.gradient_norm and p.finite]
        names = ", ".join(part.label for part in self.parts)
        if len(norms) == len(record.trained):
            norm = sum(norm**2 for norm in norms) ** 0.5
            lines.append(f"{names} received gradients (norm {norm:.3g}, {len(norms)} parameters)")
        else:
            lines.append(f"{names}: {len(norms)} of {len(record.trained)} parameters received gradients")
        frozen = sum(not p.trained and p.gradient_norm is not None for p in record.parameters)
        lines.append(f"{frozen} frozen parameters received one" if frozen else "no frozen parameter has a gradient")
        if facts.memory_tokens is not None:
            lines.append(
                f"memory: {facts.memory_tokens} tokens in {facts.samples_with_memory} of {facts.samples} samples"
            )
        return lines + record.notes

    def conclusion(self) -> str:
        """Return what all comes down to."""
        if not self.findings:
            return "all checks passed"
        return "gradients flow, with warnings" if self.ok else "gradients do not flow as they should"

    def verdict(self) -> list[str]:
        """Return the short answer, line by line: the conclusion, what was measured, and the findings."""
        lines = [self.conclusion(), *self.measured()]
        for finding in self.findings:
            lines += [
                f"{finding.code} {finding.severity}: {finding.title}",
                f"  at       {finding.place}",
                f"  evidence {finding.evidence}",
                f"  remedy   {finding.remedy}",
            ]
        return lines

    def tree(self) -> list[str]:
        """Return the chain as text, one line a module."""
        return tree_lines(self.chain())

    def html(self, title: str = "Gradient flow", warnings: Sequence[str] = ()) -> str:
        """Return one page that loads nothing; what comes from the model or the data is escaped.

        Args:
            warnings: of the data, to be shown beside the conclusion.
        """
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([_FOLDER, _FOLDER.parent / "html"]),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        report = self.as_dict()
        norms = bar_widths([node["gradient_norm"] for node in report["chain"]])
        page = environment.get_template("report.html.jinja")
        return page.render(
            title=title,
            report=report,
            conclusion=self.conclusion(),
            measured=self.measured(),
            warnings=warnings,
            norms=norms,
            script=None,
        )

    def as_dict(self) -> ReportDict:
        """Return the report as plain JSON values."""
        record = self.recording
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "trainable": [path for part in self.parts for path in part.paths],
            "loss": finite_or_none(record.loss),
            "loss_requires_grad": record.loss_requires_grad,
            "loss_grad_fn": record.loss_grad_fn or None,
            "forward_error": record.forward_error or None,
            "backward_error": record.backward_error or None,
            "batch": {k: v for k, v in asdict(self.facts).items() if k not in {"groups", "distinct"}},
            "findings": [asdict(finding) for finding in self.findings],
            "parameters": [
                {
                    "name": p.name,
                    "used": p.used,
                    "requires_grad": p.requires_grad,
                    "gradient_norm": finite_or_none(p.gradient_norm),
                    "finite": p.finite,
                }
                for p in record.trained
            ],
            "chain": [asdict(node) for node in self.chain()],
            "notes": record.notes,
        }


def bar_widths(norms: list[float | None]) -> list[int]:
    """Scale norms to widths in percent, logarithmically: gradients span many orders of magnitude."""
    logs = [math.log10(norm) if norm else None for norm in norms]
    known = [value for value in logs if value is not None]
    low, high = min(known, default=0.0) - 1, max(known, default=0.0)
    return [0 if value is None else round(100 * (value - low) / (high - low)) for value in logs]

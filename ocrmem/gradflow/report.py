"""What `check` answers: verdict, findings and the chain, as text, JSON and HTML."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ocrmem.gradflow.catalogue import Finding
from ocrmem.gradflow.chain import ChainNode, chain_of, finite_or_none, tree_lines
from ocrmem.gradflow.facts import BatchFacts
from ocrmem.gradflow.probe import Recording

SCHEMA = "urn:ocrmem:gradflow-report:1"


@dataclass(frozen=True)
class Report:
    """The result of one check.

    Attributes:
        findings: one for each cause, the nearest first; empty when all is well.
        recording: every module call and parameter, as `Probe` saw them.
        facts: what the batch held.
        trained: paths of the modules that ought to train.
    """

    findings: list[Finding]
    recording: Recording
    facts: BatchFacts
    trained: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True when no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]

    def chain(self) -> list[ChainNode]:
        """The modules from the inputs to the loss, with what became of the gradient in each."""
        return chain_of(self.recording, self.findings, self.trained)

    def measured(self) -> list[str]:
        """What forward and backward gave, line by line."""
        record = self.recording
        lines = []
        if record.forward_error:
            lines.append(f"forward failed: {record.forward_error}")
        else:
            lines.append(f"loss {record.loss:.4g} requires_grad {record.loss_requires_grad}")
            lines.append(f"backward failed: {record.backward_error}" if record.backward_error else "backward ok")
            reached = [p for p in record.trained if p.gradient_norm]
            names = ", ".join(self.trained)
            if len(reached) == len(record.trained):
                norm = sum((p.gradient_norm or 0.0) ** 2 for p in reached) ** 0.5
                lines.append(f"{names} received gradients (norm {norm:.3g}, {len(reached)} parameters)")
            else:
                lines.append(f"{names}: {len(reached)} of {len(record.trained)} parameters received gradients")
            frozen = [p for p in record.parameters if not p.trained and p.gradient_norm is not None]
            lines.append(
                f"{len(frozen)} frozen parameters received one" if frozen else "no frozen parameter has a gradient"
            )
            if self.facts.memory_tokens is not None:
                lines.append(
                    f"memory: {self.facts.memory_tokens} tokens in {self.facts.samples_with_memory} "
                    f"of {self.facts.samples} samples"
                )
        return lines + record.notes

    def verdict(self) -> list[str]:
        """The short answer, line by line: what was measured, then the findings or "all checks passed"."""
        lines = self.measured()
        if not self.findings:
            return [*lines, "all checks passed"]
        for finding in self.findings:
            lines += [
                f"{finding.code} {finding.severity}: {finding.title}",
                f"  at       {finding.place}",
                f"  evidence {finding.evidence}",
                f"  remedy   {finding.remedy}",
            ]
        return lines

    def tree(self) -> list[str]:
        """The chain as text, a line a module."""
        return tree_lines(self.chain())

    def html(self, title: str = "Gradient flow") -> str:
        """One self-contained page: verdict, findings, the chain drawn."""
        from ocrmem.gradflow.page import render_page

        return render_page(self, title)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the format is `report.schema.json`, beside this module."""
        record = self.recording
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "trainable": list(self.trained),
            "loss": finite_or_none(record.loss),
            "loss_requires_grad": record.loss_requires_grad,
            "forward_error": record.forward_error or None,
            "backward_error": record.backward_error or None,
            "batch": {k: v for k, v in asdict(self.facts).items() if k not in {"groups", "distinct"}},
            "findings": [finding.as_dict() for finding in self.findings],
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

"""The chain of modules that ran, as a tree from the inputs to the loss, short enough to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocrmem.gradflow.catalogue import Finding
from ocrmem.gradflow.probe import ModuleCall, Recording, is_under

MAX_DEPTH = 2  # deeper modules are shown only around the trained part and at a cut


@dataclass
class ChainNode:
    """One module of the tree.

    Attributes:
        path, kind: dotted path and class.
        depth: nesting, from 0.
        calls: how often it ran in this pass.
        state: "frozen" (before the trained part), "trained", "carries" (gradient flows), "cut", "not called".
        gradient_norm: of its last output, if backward came by.
        findings: codes of the findings placed here.
    """

    path: str
    kind: str
    depth: int
    calls: int
    state: str
    gradient_norm: float | None = None
    findings: list[str] = field(default_factory=list)


def chain_of(recording: Recording, findings: Sequence[Finding], trained: Sequence[str]) -> list[ChainNode]:
    """Merge each module's calls into one node, in the order of first calls, leaving deep frozen parts out."""
    placed = {finding.module: [f.code for f in findings if f.module == finding.module] for finding in findings}
    nodes: dict[str, ChainNode] = {}
    for call in recording.calls:
        if not _shown(call, placed, trained):
            continue
        node = nodes.get(call.path)
        if node is None:
            nodes[call.path] = ChainNode(
                path=call.path or "(model)",
                kind=call.kind,
                depth=call.depth,
                calls=1,
                state=_state(call, trained),
                gradient_norm=finite_or_none(call.gradient_norm),
                findings=placed.get(call.path, []),
            )
        else:
            node.calls += 1
            if _state(call, trained) == "cut":
                node.state = "cut"
    for path in trained:
        if path not in nodes:
            nodes[path] = ChainNode(path, "", 1, 0, "not called", None, placed.get(path, []))
    return list(nodes.values())


def tree_lines(nodes: Sequence[ChainNode]) -> list[str]:
    """Draw the chain as a text tree that marks the trained part and the cut."""
    marks = {"frozen": " ", "trained": "*", "carries": "|", "cut": "X", "not called": "?"}
    lines = ["  (inputs first; * trained, | gradient flows back here, X cut, ? not called)"]
    for node in nodes:
        name = node.path if node.depth <= 1 else node.path.split(".", 1)[-1]
        label = f"{marks[node.state]} {'  ' * node.depth}{name}"
        norm = f"gradient {node.gradient_norm:.2e}" if node.gradient_norm is not None else ""
        calls = f"x{node.calls}" if node.calls > 1 else ""
        found = f"<-- {', '.join(node.findings)}" if node.findings else ""
        lines.append(f"  {label:<44} {node.kind:<28} {calls:<5} {norm:<18} {found}".rstrip())
    return lines


def _shown(call: ModuleCall, placed: dict[str, list[str]], trained: Sequence[str]) -> bool:
    return call.depth <= MAX_DEPTH or is_under(call.path, trained) or call.path in placed


def _state(call: ModuleCall, trained: Sequence[str]) -> str:
    if not call.output_depends:
        return "frozen"
    if not call.output_alive:
        return "cut"
    return "trained" if is_under(call.path, trained) else "carries"


def finite_or_none(value: float | None) -> float | None:
    """Replace what JSON cannot hold; the findings report values that are not finite."""
    return value if value is not None and math.isfinite(value) else None

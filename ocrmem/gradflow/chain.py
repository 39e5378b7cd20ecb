"""The chain of modules that ran, as a tree from the inputs to the loss, short enough to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocrmem.gradflow.catalogue import Finding
from ocrmem.gradflow.parts import Part, is_under
from ocrmem.gradflow.probe import Recording

MAX_DEPTH = 2  # deeper modules are shown only around the trained part and at a cut


@dataclass
class ChainNode:
    """One module of the tree."""

    path: str
    kind: str  # its class
    depth: int  # of nesting, from 0
    calls: int  # in this pass
    state: str  # "frozen" (before the trained part), "trained", "carries" (gradient flows), "cut", "not called"
    gradient_norm: float | None = None  # of its last output, if backward came by
    findings: list[str] = field(default_factory=list)  # codes of those placed here


def chain_of(recording: Recording, findings: Sequence[Finding], parts: Sequence[Part]) -> list[ChainNode]:
    """Merge each module's calls into one node, in the order of first calls, leaving deep frozen parts out."""
    trained = [path for part in parts for path in part.paths]
    placed = {finding.module: [f.code for f in findings if f.module == finding.module] for finding in findings}
    nodes: dict[str, ChainNode] = {}
    for call in recording.calls:
        path, within = call.path, is_under(call.path, trained)
        if call.depth > MAX_DEPTH and not within and path not in placed:
            continue
        if not call.output_depends:
            state = "frozen"
        elif not call.output_alive:
            state = "cut"
        else:
            state = "trained" if within else "carries"
        norm, found = finite_or_none(call.gradient_norm), placed.get(path, [])
        node = nodes.setdefault(path, ChainNode(path or "(model)", call.kind, call.depth, 0, state, norm, found))
        node.calls += 1
        if state == "cut":
            node.state = state
    single = {parameter for part in parts for parameter in part.parameters}
    for path in (path for path in trained if path not in single):
        nodes.setdefault(path, ChainNode(path, "", 1, 0, "not called", None, placed.get(path, [])))
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


def finite_or_none(value: float | None) -> float | None:
    """Replace what JSON cannot hold; the findings report values that are not finite."""
    return value if value is not None and math.isfinite(value) else None

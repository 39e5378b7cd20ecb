"""What today's tools say about each gradient fault, beside what gradflow says.

    python benchmarks/gradient_tools.py            # a Markdown table, as in docs/gradient-flow.md
    python benchmarks/gradient_tools.py --full     # the whole text of every answer

The faults are those of the tests, injected into the plain three-part module. Every tool really runs:
plain PyTorch (forward, backward), torch's anomaly mode, torchviz, wandb.watch in an offline run, and torchlens where it
is installed (it is no dependency of the project: give it an environment of its own).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.update({"WANDB_MODE": "offline", "WANDB_SILENT": "true"})
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from support.faults import FAULTS, FaultCase, Parts, plain  # noqa: E402

from ocrmem import gradflow  # noqa: E402

SILENT = "nothing"


def build(case: FaultCase) -> tuple[Parts, dict[str, Any]]:
    parts = plain()
    case.inject(parts)
    options = dict(case.options)
    settings = {name: options.pop(name) for name in ("context_threshold", "max_seq_length") if name in options}
    if settings:
        length = parts.batch["labels"].shape[1]
        parts.model.config = SimpleNamespace(  # type: ignore[assignment]
            **{name: length if isinstance(value, str) else value for name, value in settings.items()}
        )
    return parts, options


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def run_backward(parts: Parts) -> str:
    """One training step's forward and backward, as a user's loop does it."""
    try:
        loss = parts.model(**parts.batch)["loss"]
        loss.backward()
    except RuntimeError as error:
        return first_line(error)
    return SILENT if torch.isfinite(loss) else f"{SILENT}; the loss is {float(loss)}"


def plain_pytorch(case: FaultCase) -> str:
    return run_backward(build(case)[0])


def anomaly_mode(case: FaultCase) -> str:
    with torch.autograd.detect_anomaly(check_nan=True):
        return run_backward(build(case)[0])


def torchviz(case: FaultCase) -> str:
    """Whether its drawing of the loss's graph holds proj's parameters."""
    from torchviz import make_dot

    parts, _ = build(case)
    try:
        loss = parts.model(**parts.batch)["loss"]
        drawing = make_dot(loss, params=dict(parts.model.named_parameters()))
    except (RuntimeError, AttributeError) as error:
        return f"fails: {first_line(error)}"
    nodes = drawing.source.count("[label=")
    if nodes <= 1:
        return "an empty drawing"
    return "a drawing with proj" if "proj." in drawing.source else "a drawing without proj"


def wandb_watch(case: FaultCase) -> str:
    """Which of proj's gradients its histograms show."""
    import wandb

    parts, _ = build(case)
    with tempfile.TemporaryDirectory() as folder, _offline_run(wandb, folder) as run:
        run.watch(parts.model, log="gradients", log_freq=1)
        for _ in range(3):  # it shows nothing yet at the first step
            said = run_backward(parts)
            run.log({"loss": 0.0})
        shown = [key for key in dict(run.summary) if key.startswith("gradients/") and "proj." in key]
    if not said.startswith(SILENT):
        return "no histogram (PyTorch's error came first)"
    return f"histograms of {len(shown)} proj parameters" if shown else "no histogram of proj"


def torchlens(case: FaultCase) -> str:
    """Where its trace finds the first value that is not finite, or whether proj leads to the output in it."""
    import torchlens as lens

    parts, _ = build(case)
    try:
        options = lens.options.CaptureOptions(unwrap_when_done=True)
        trace = lens.trace(parts.model, [], dict(parts.batch), capture=options)
    except Exception as error:  # noqa: BLE001  # of the model or the tool
        return first_line(error)
    nan = trace.find_nan()
    if nan.found:
        return f"{nan.kind} first at {nan.label}, line {nan.source_line.rpartition(':')[2]}"
    of_proj = [op for op in trace if op.module and str(op.module).startswith("proj")]
    if not of_proj:
        return "a graph without proj"
    return "a graph with proj" if any(op.has_output_descendant for op in of_proj) else "a graph in which proj ends"


@contextmanager
def _offline_run(wandb: Any, folder: str) -> Iterator[Any]:
    run = wandb.init(project="gradient-tools", dir=folder, settings=wandb.Settings(silent=True))
    try:
        yield run
    finally:
        run.finish()


def this(case: FaultCase) -> str:
    parts, options = build(case)
    report = gradflow.check(parts.model, parts.batch, "proj", **options)
    return "; ".join(
        f"{f.code} {f.title}, at {f.module or 'the model'}:{f.source.rpartition(':')[2]}" for f in report.findings
    )


TOOLS: dict[str, Callable[[FaultCase], str]] = {
    "plain PyTorch": plain_pytorch,
    "anomaly mode": anomaly_mode,
    "torchviz": torchviz,
    "wandb.watch": wandb_watch,
    **({"torchlens": torchlens} if importlib.util.find_spec("torchlens") else {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="do not shorten the answers")
    full = parser.parse_args().full
    print("| fault | " + " | ".join([*TOOLS, "gradflow"]) + " |")
    print("| --- " * (len(TOOLS) + 2) + "|")
    for case in FAULTS:
        own = this(case)  # before torchlens, which may leave torch's functions wrapped after an error
        answers = [tool(case).replace("|", "/") for tool in TOOLS.values()]
        shown = [*(answers if full else map(shortened, answers)), own]
        print(f"| {case.name} | " + " | ".join(shown) + " |", flush=True)


def shortened(answer: str) -> str:
    """The two long messages by the names that docs/troubleshooting.md gives them."""
    for text, name in (("element 0 of tensors", "*element 0*"), ("Inference tensors", "*inference tensors*")):
        if text in answer:
            return name
    return answer if len(answer) <= 70 else f"{answer[:67]}..."


if __name__ == "__main__":
    main()

"""The verb ``smoke``: on a few real samples, do gradients reach all of proj, and nothing else?

One forward and one backward pass of the run's own model on the dataset's own samples, before a long run is
paid for. Each check has a name, what was seen, and a remedy; what an earlier failure makes impossible is
"skipped", never "passed".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.dataset.loader import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.features import MANIFEST, FeatureStore
from ocrmem.errors import CheckFailed, Problem
from ocrmem.files import write_json
from ocrmem.model.batch import MemoryCollator
from ocrmem.model.modeling import MEMModel
from ocrmem.model.trainable import TRAINED, parameter_report
from ocrmem.tokens import load_tokenizer

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Check:
    """One check of the smoke test.

    Attributes:
        name: stable, for scripts.
        title: what is checked, for people.
        status: "passed", "failed" or "skipped" (an earlier failure left nothing to check).
        evidence: what was seen.
        remedy: what to do when it failed.
    """

    name: str
    title: str
    status: str
    evidence: str
    remedy: str


@dataclass
class SmokeReport:
    """All checks, in order, and the loss."""

    checks: list[Check] = field(default_factory=list)
    loss: float | None = None

    @property
    def ok(self) -> bool:
        return all(check.status == PASSED for check in self.checks)

    def add(self, name: str, passed: bool | None, evidence: str) -> bool:
        """Note a check's outcome; None means it could not be made. Returns whether it passed."""
        title, remedy = CHECKS[name]
        status = SKIPPED if passed is None else PASSED if passed else FAILED
        self.checks.append(Check(name, title, status, evidence, remedy))
        return status == PASSED

    def skip_rest(self) -> None:
        """Note every check that was not reached."""
        done = {check.name for check in self.checks}
        for name in CHECKS:
            if name not in done:
                self.add(name, None, "not reached")


# name -> (title, remedy)
CHECKS = {
    "samples": (
        "the data has samples with memory",
        "Lower model.context_threshold below the length of your histories and run `ocrmem render` again",
    ),
    "trainable": (
        "proj is trainable and nothing else is",
        "Freeze all but proj: model.requires_grad_(False); model.proj.requires_grad_(True)",
    ),
    "forward": (
        "forward runs",
        "Read the evidence; features must not come from torch.inference_mode() (use no_grad or .clone())",
    ),
    "memory_tokens": (
        "memory took part",
        "See that the samples' pages reach the batch: collate with MemoryCollator",
    ),
    "loss_finite": (
        "loss is finite",
        "Look for labels that are all -100, for float16 overflow and for features that are not finite",
    ),
    "loss_requires_grad": (
        "loss requires grad",
        "Look for no_grad, inference_mode, detach() or .data between proj and the loss",
    ),
    "backward": ("backward runs", "Read the evidence; something in the graph was changed in place or freed"),
    "proj_gradients": (
        "every proj parameter has a finite, non-zero gradient",
        "Look for detach() behind proj, for parameters that forward does not use, and for overflow",
    ),
    "frozen_gradients": (
        "no frozen parameter has a gradient",
        "Freeze all but proj before the first backward, and clear old gradients with zero_grad()",
    ),
    "memory_matters": (
        "the loss changes with another page's features",
        "The encoder's features do not depend on the page, or the loss does not see them: check its weights",
    ),
}


def smoke(config: RunConfig, model: MEMModel | None = None) -> dict[str, Any]:
    """Run the smoke test and write ``paths.smoke``/report.json.

    With a feature store the stored features are used; before `encode` has run, the pages go through the
    encoder, which is then part of the test.

    Args:
        model: a model to test instead of the run's new one.

    Raises:
        MissingInputError: no dataset, or the base has not been built.
        CheckFailed: with one problem for each failed check.
    """
    dataset = MemoryDataset.open(Path(config.paths.dataset))
    stored = (Path(config.paths.features) / MANIFEST).is_file()
    store = FeatureStore.open(Path(config.paths.features)) if stored else None
    samples = pick_samples(dataset, config.smoke.samples)
    report, parameters = SmokeReport(), ""
    if report.add("samples", bool(samples), f"{len(samples)} of them are used"):
        if not stored:
            note("smoke: no feature store, so the pages go through the encoder")
        model = model or MEMModel.from_run_config(config, with_encoder=not stored)
        parameters = parameter_report(model.trainable_parameters())
        builder = SequenceBuilder(load_tokenizer(config), config.model.max_seq_length)
        batch = MemoryCollator(builder, dataset, store)(samples)
        run_checks(model, batch, other_memory(batch, dataset, store, samples), report)
    report.skip_rest()
    return _conclude(config, report, parameters, "stored features" if stored else "encoder")


def pick_samples(dataset: MemoryDataset, count: int) -> list[Sample]:
    """The first training samples with memory whose pages differ."""
    picked: dict[tuple[str, ...], Sample] = {}
    for sample in dataset.samples("train"):
        if sample.has_memory:
            picked.setdefault(sample.pages, sample)
        if len(picked) == count:
            break
    return list(picked.values())


def other_memory(
    batch: Batch, dataset: MemoryDataset, store: FeatureStore | None, samples: Sequence[Sample]
) -> dict[str, torch.Tensor]:
    """The same batch with the memory of other pages, token for token in the same places of the page.

    Each page is replaced by the next one of the dataset; where there is only one page, its tokens (or its
    rows of pixels) come in reverse.
    """
    pages = [page for sample in samples for page in sample.pages]
    hashes = dataset.page_hashes()
    following = dict(zip(hashes, [*hashes[1:], hashes[0]], strict=True))
    others = [following[page] for page in pages]
    if store is not None:
        kept = [dataset.kept(page) for page in pages]
        features = store.gather(others, kept) if others != pages else batch["memory_features"].flip(0)
        return {**batch, "memory_features": features}
    pixels = batch["pixel_values"]
    if others == pages:
        return {**batch, "pixel_values": pixels.flip(2)}
    drawn = torch.stack([torch.from_numpy(dataset.page(page).pixels()) for page in others])
    return {**batch, "pixel_values": drawn}


def run_checks(model: MEMModel, batch: Batch, other: Batch, report: SmokeReport) -> None:
    """One forward, one backward and one more forward; gradients are cleared before and after.

    Args:
        batch: keyword arguments of forward, with labels.
        other: the same with other memory.
        report: gets the checks, in order, up to the first that makes the next ones impossible.
    """
    device = next(model.proj.parameters()).device
    batch, other = ({name: value.to(device) for name, value in b.items()} for b in (batch, other))
    model.zero_grad(set_to_none=True)
    try:
        _checks(model, batch, other, report)
    finally:
        model.zero_grad(set_to_none=True)


def _checks(model: MEMModel, batch: Batch, other: Batch, report: SmokeReport) -> None:
    wrong = [n for n, p in model.named_parameters() if p.requires_grad != (n.split(".")[0] == TRAINED)]
    report.add("trainable", not wrong, _listed("on the wrong side", wrong))
    try:
        output = model(**batch)
    except (RuntimeError, ValueError) as error:
        report.add("forward", False, str(error).splitlines()[0])
        return
    report.add("forward", True, "ran")
    report.add("memory_tokens", bool(output.memory_tokens), f"{output.memory_tokens or 0} memory tokens")
    loss = output.loss
    report.loss = float(loss.detach())
    report.add("loss_finite", bool(torch.isfinite(loss)), f"loss {report.loss:.4f}")
    if not report.add("loss_requires_grad", loss.requires_grad, f"requires_grad {loss.requires_grad}"):
        return
    try:
        loss.backward()
    except RuntimeError as error:
        report.add("backward", False, str(error).splitlines()[0])
        return
    report.add("backward", True, "ran")
    _check_gradients(model, report)
    with torch.no_grad():
        changed = float(model(**other).loss)
    # Exactly equal features give the same loss to the last bit on a CPU; a GPU's sums may differ by rounding.
    matters = abs(changed - report.loss) > 1e-6 * max(1.0, abs(report.loss))
    report.add("memory_matters", matters, f"loss {report.loss:.6f}, with other pages {changed:.6f}")


def _check_gradients(model: MEMModel, report: SmokeReport) -> None:
    bad, norms = [], []
    for name, parameter in model.proj.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            bad.append(f"proj.{name} (none)")
        elif not torch.isfinite(gradient).all():
            bad.append(f"proj.{name} (not finite)")
        elif not gradient.any():
            bad.append(f"proj.{name} (all zero)")
        else:
            norms.append(float(gradient.float().norm()))
    seen = f"{len(norms)} parameters, gradient norm {sum(n * n for n in norms) ** 0.5:.3g}"
    report.add("proj_gradients", not bad, _listed("without one", bad) if bad else seen)
    leaked = [n for n, p in model.named_parameters() if n.split(".")[0] != TRAINED and p.grad is not None]
    report.add("frozen_gradients", not leaked, _listed("with one", leaked))


def _listed(what: str, names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{what}: {shown}" if names else f"none {what}"


def _conclude(config: RunConfig, report: SmokeReport, parameters: str, memory_from: str) -> dict[str, Any]:
    path = Path(config.paths.smoke) / "report.json"
    result = {
        "ok": report.ok,
        "loss": report.loss if report.loss is not None and abs(report.loss) < float("inf") else None,
        "memory_from": memory_from,
        "checks": [asdict(check) for check in report.checks],
        "parameters": parameters.splitlines(),
    }
    write_json(path, result)
    lines = [f"{check.status:<7} {check.title}: {check.evidence}" for check in report.checks]
    failed = [check for check in report.checks if check.status == FAILED]
    if failed:
        note("\n".join(lines))
        raise CheckFailed(
            [Problem(f"smoke: {c.name}", f"{c.title}: no ({c.evidence})", c.remedy) for c in failed]
        )
    verdict = f"all checks passed ({path})"
    return result | {"summary": [*parameters.splitlines(), *lines, verdict]}

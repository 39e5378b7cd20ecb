"""The verb ``smoke``: on a few real samples, do gradients reach all of proj, and nothing else?

`gradflow.check` on the run's own model and the dataset's own samples, before a long run is paid for, and one
more forward pass to see that the loss changes with another page. ``--model`` does the same for anybody's model.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.dataset.loader import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.features import FeatureStore
from ocrmem.errors import CheckFailed, ConfigError, DataError
from ocrmem.facts import MANIFEST
from ocrmem.files import write_json, write_text
from ocrmem.gradflow.catalogue import Finding, finding
from ocrmem.gradflow.check import as_problem, check
from ocrmem.gradflow.report import Report
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.modeling import MEMModel
from ocrmem.model.trainable import TRAINED, parameter_report

Batch = Mapping[str, torch.Tensor]


def smoke(config: RunConfig, model: MEMModel | None = None) -> dict[str, Any]:
    """Run the smoke test; write ``paths.smoke``/report.json and report.html.

    With a feature store the stored features are used; before `encode` has run, the pages go through the
    encoder, which is then part of the test.

    Args:
        model: a model to test instead of the run's new one.

    Raises:
        MissingInputError: no dataset, or the base has not been built.
        DataError: the dataset has no training sample at all.
        CheckFailed: with one problem for each error found.
    """
    dataset = MemoryDataset.open(Path(config.paths.dataset))
    stored = (Path(config.paths.features) / MANIFEST).is_file()
    store = FeatureStore.open(Path(config.paths.features), pages=dataset.page_hashes()) if stored else None
    everything = dataset.samples("train")
    if not everything:
        raise DataError.of(config.paths.dataset, "has no training sample", "Add conversations and run `ocrmem render`")
    samples = pick_samples(dataset, config.smoke.samples) or everything[: config.smoke.samples]
    if not stored:
        note("smoke: no feature store, so the pages go through the encoder")
    model = model or MEMModel.from_run_config(config, with_encoder=not stored)
    device = next(model.proj.parameters()).device
    builder = SequenceBuilder.of(config)
    batch = _to(device, MemoryCollator(builder, dataset, store)(samples))
    longest = max(sample.history_tokens for sample in everything)
    report = check(model, batch, TRAINED, distinct_memories=True, longest_history=longest)
    details: dict[str, Any] = {
        "memory_from": "stored features" if stored else "encoder",
        "samples": [sample.id for sample in samples],
        "trainable_parameters": parameter_report(model.trainable_parameters()).splitlines(),
        "loss_with_other_pages": None,
    }
    if report.ok:
        other = _to(device, other_memory(batch, dataset, store, samples))
        with torch.no_grad():
            details["loss_with_other_pages"] = changed = float(model(**other).loss)
        report = replace(report, findings=[*report.findings, *_memory_matters(report, changed)])
    return conclude(report, Path(config.paths.smoke), details)


def smoke_model(target: str, trainable: str = TRAINED, output: Path = Path("smoke")) -> dict[str, Any]:
    """`gradflow.check` for a model that is not ours.

    Args:
        target: ``package.module:function``; the function takes nothing and returns ``(model, batch)``, the
            batch being the keyword arguments of forward. Modules of the working directory are found.
        trainable: path of the module that ought to train.
        output: folder for report.json and report.html.

    Raises:
        ConfigError: the function cannot be imported or returns something else, or ``trainable`` names nothing.
        CheckFailed: with one problem for each error found.
    """
    model, batch = _made_by(target)
    try:
        report = check(model, batch, trainable)
    except ValueError as error:
        raise ConfigError.of(target, str(error), "Mend the function, or pass --trainable") from None
    return conclude(report, output, {"model": target})


def conclude(report: Report, directory: Path, details: Mapping[str, Any]) -> dict[str, Any]:
    """Write the two reports and return the result.

    Raises:
        CheckFailed: the report holds errors; the verdict and the tree have been shown.
    """
    values = {**report.as_dict(), **details}
    write_json(directory / "report.json", values)
    write_text(directory / "report.html", report.html("Gradient flow: smoke test"))
    lines = [*details.get("trainable_parameters", []), *report.verdict()]
    shown = [*lines, "", *report.tree()]
    errors = [found for found in report.findings if found.severity == "error"]
    if errors:
        note("\n".join(shown))
        raise CheckFailed([as_problem(found) for found in errors])
    return values | {"summary": [*report.tree(), "", *lines, f"report: {directory / 'report.html'}"]}


def _memory_matters(report: Report, changed: float) -> list[Finding]:
    """Exactly equal features give the same loss to the last bit on a CPU; a GPU's sums may differ by rounding."""
    loss = report.recording.loss or 0.0
    if abs(changed - loss) > 1e-6 * max(1.0, abs(loss)):
        return []
    evidence = f"loss {loss:.6f}, with other pages {changed:.6f}"
    return [finding("GF022", trained=TRAINED, module=TRAINED, source="", evidence=evidence)]


def _to(device: torch.device, batch: Batch) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _made_by(target: str) -> tuple[torch.nn.Module, Mapping[str, Any]]:
    module, _, name = target.partition(":")
    remedy = "Give package.module:function, where function() returns (model, batch)"
    if not module or not name:
        raise ConfigError.of("--model", f"{target!r} is not of the form package.module:function", remedy)
    sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError.of("--model", f"{target} cannot be imported ({error})", remedy) from None
    finally:
        sys.path.remove("")
    made = function()
    match made:
        case (torch.nn.Module() as model, Mapping() as batch):
            return model, batch
    raise ConfigError.of("--model", f"{target}() returned {type(made).__name__}, not (model, batch)", remedy)


def pick_samples(dataset: MemoryDataset, count: int) -> list[Sample]:
    """The first training samples with memory of which no two share a page."""
    picked: list[Sample] = []
    seen: set[str] = set()
    for sample in dataset.samples("train"):
        if sample.has_memory and seen.isdisjoint(sample.pages):
            picked.append(sample)
            seen.update(sample.pages)
        if len(picked) == count:
            break
    return picked


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

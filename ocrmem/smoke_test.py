"""The verb ``smoke``: on a few real samples, do gradients reach all of proj (and LoRA), and nothing else?

Before a long run is paid for, `gradflow.check` takes the run's own model and samples of its dataset, and one more
forward pass shows that the loss changes with another page.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NotRequired, cast

import torch

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.errors import CheckFailed, ConfigError, DataError, Problem
from ocrmem.facts import MANIFEST, PROJ, SMOKE_REPORT
from ocrmem.files import locked, locking, write_json, write_text
from ocrmem.gradflow import Report, check
from ocrmem.gradflow.catalogue import Finding, Place, finding
from ocrmem.gradflow.parts import Trainable
from ocrmem.gradflow.probe import line_of
from ocrmem.gradflow.report import ReportDict
from ocrmem.json_files import with_sha256
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.modeling import MEMModel
from ocrmem.model.trainable import parameter_report, trained_parts
from ocrmem.objectives import Material, make_objectives
from ocrmem.objectives.answer import Answer
from ocrmem.rendering.page import pixel_batch
from ocrmem.verdicts import dataset_warnings, warning_lines

_CANDIDATES = 64  # samples among which those of an objective's batch are looked for


class SmokeResult(ReportDict):
    """The content of report.json, and the summary."""

    memory_from: NotRequired[str]  # "stored features" or "encoder"
    samples: NotRequired[list[str]]  # ids of those that were checked
    parts: NotRequired[list[dict[str, Any]]]  # parameters of each part, as `PartCount` has them
    trainable_parameters: NotRequired[list[str]]  # the same as a table, line by line
    loss_with_other_pages: NotRequired[float | None]  # None where the check failed before
    losses: NotRequired[dict[str, float | None]]  # of the other objectives of train.stages, where `answer` passed
    warnings: NotRequired[list[str]]  # what makes the dataset less than it seems
    model: NotRequired[str]  # ``--model``'s target, in place of those above
    summary: list[str]


@locking("smoke", lambda config: config.paths.smoke)
def smoke(config: RunConfig, model: MEMModel | None = None) -> SmokeResult:
    """Run the smoke test; write ``paths.smoke``/report.json and report.html.

    With a feature store the stored features are used; before `encode` has run, the pages go through the
    encoder, which is then part of the test.

    Args:
        model: a model to test instead of the run's new one.

    Raises:
        MissingInputError: no dataset, or the base has not been built.
        DataError: the dataset has no training sample.
        CheckFailed: with one problem for each error found.
    """
    dataset = MemoryDataset.open(Path(config.paths.dataset))
    stored = os.path.lexists(Path(config.paths.features) / MANIFEST)
    store = FeatureStore.open(Path(config.paths.features), pages=dataset.page_hashes()) if stored else None
    everything = dataset.samples("train")
    if not everything:
        raise DataError.of(config.paths.dataset, "has no training sample", "Add conversations and run `ocrmem render`")
    samples = pick_samples(everything, config.smoke.samples) or everything[: config.smoke.samples]
    if not stored:
        note("smoke: no feature store, so the pages go through the encoder")
    if model is None:
        model = MEMModel.from_run_config(config, with_encoder=not stored)
    device = next(model.proj.parameters()).device
    batch = _to(device, MemoryCollator(SequenceBuilder.of(config), dataset, store)(samples))
    longest = max(sample.history_tokens for sample in everything)
    report = check(model, batch, trained_parts(model), distinct_memories=True, longest_history=longest)
    counts = model.trainable_parameters()
    details: dict[str, Any] = {
        "memory_from": "stored features" if stored else "encoder",
        "samples": [sample.id for sample in samples],
        "parts": [asdict(part) for part in counts],
        "trainable_parameters": parameter_report(counts).splitlines(),
        "loss_with_other_pages": None,
        "warnings": dataset_warnings(dataset.manifest["counts"]),
    }
    if report.ok:
        other = _to(device, other_memory(batch, dataset, store, samples))
        with torch.no_grad():
            details["loss_with_other_pages"] = changed = float(model(**other).loss)
        loss = report.recording.loss or 0.0
        # On a CPU, equal features give the same loss to the last bit; a GPU's sums may differ by rounding.
        if abs(changed - loss) <= 1e-6 * max(1.0, abs(loss)):
            evidence = f"loss {loss:.6f}, with other pages {changed:.6f}"
            report = replace(report, findings=[*report.findings, finding("GF022", PROJ, Place(PROJ), evidence)])
    if report.ok:
        material = Material(config, SequenceBuilder.of(config), dataset, store, everything)
        details["losses"], findings = _check_objectives(model, material)
        report = replace(report, findings=[*report.findings, *findings])
    return _conclude(report, Path(config.paths.smoke), details)


def _check_objectives(model: MEMModel, material: Material) -> tuple[dict[str, float | None], list[Finding]]:
    """Check a batch of each objective of ``train.stages`` but `answer`; return their losses and what was found."""
    names = [name for name in material.config.train.objectives() if name != Answer.name]
    losses: dict[str, float | None] = {}
    findings: list[Finding] = []
    for name, objective in make_objectives(names, material).items():
        candidates = [material.samples[int(index)] for index in objective.eligible()[:_CANDIDATES]]
        samples = pick_samples(candidates, material.config.smoke.samples)
        batch = objective.inputs(objective(samples))
        report = objective.check(model, _to(next(model.proj.parameters()).device, batch))
        losses[name] = report.recording.loss
        findings += report.findings
    return losses, findings


def smoke_model(target: str, trainable: Trainable = PROJ, output: Path = Path("smoke")) -> SmokeResult:
    """Run `gradflow.check` on another model.

    Args:
        target: ``package.module:function``; the function takes nothing and returns ``(model, batch)``, the
            batch being the keyword arguments of forward. Modules of the working directory are found.
        trainable: what is to be trained, as `gradflow.check` takes it.
        output: folder for report.json and report.html.

    Raises:
        ConfigError: the function cannot be imported or returns something else, ``trainable`` names nothing, or
            function or model raise an error of their own, which is given with its line.
        CheckFailed: with one problem for each error found.
    """
    with locked(output, "smoke"):
        model, batch = _made_by(target)
        try:
            report = check(model, batch, trainable)
        except Exception as error:  # noqa: BLE001  # another's code may raise anything
            if isinstance(error, ValueError) and _is_ours(error):
                raise ConfigError.of(target, str(error), "Fix the function, or pass --trainable") from None
            raise _error_of_theirs(error, target) from None
        return _conclude(report, output, {"model": target})


def _conclude(report: Report, directory: Path, details: Mapping[str, Any]) -> SmokeResult:
    """Write the two reports and return the result, or show verdict and tree and raise `CheckFailed`."""
    warnings = details.get("warnings", [])
    values = {**report.as_dict(), **details}
    write_json(directory / SMOKE_REPORT, with_sha256(values))
    write_text(directory / "report.html", report.html("Gradient flow: smoke test", warnings))
    verdict, *found = report.verdict()
    lines = [f"smoke: {verdict}", *warning_lines(warnings), *found]
    lines += ["", *details.get("trainable_parameters", []), "", *report.tree()]
    if not report.ok:
        note("\n".join(lines))
        raise CheckFailed([Problem(*fault) for fault in report.faults()])
    return cast(SmokeResult, values | {"summary": [*lines, "", f"report: {directory / 'report.html'}"]})


def _to(device: torch.device, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _made_by(target: str) -> tuple[torch.nn.Module, Mapping[str, Any]]:
    module, _, name = target.partition(":")
    remedy = "Give package.module:function, where function() returns (model, batch)"
    if not module or not name:
        raise ConfigError.of("--model", f"{target!r} is not of the form package.module:function", remedy)
    sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module), name)
        made = function()
    except (ImportError, AttributeError) as error:
        if _is_ours(error):
            raise ConfigError.of("--model", f"{target} cannot be imported ({error})", remedy) from None
        raise _error_of_theirs(error, target) from None
    except Exception as error:  # noqa: BLE001  # another's code may raise anything
        raise _error_of_theirs(error, target) from None
    finally:
        sys.path.remove("")
    match made:
        case (torch.nn.Module() as model, Mapping() as batch):
            return model, batch
        case _:
            raise ConfigError.of("--model", f"{target}() returned {type(made).__name__}, not (model, batch)", remedy)


def _is_ours(error: Exception) -> bool:
    """Return whether no code of the model's author raised this error or called what did."""
    return line_of(error).startswith((f"{__file__}:", "<frozen importlib", importlib.__file__ or ""))


def _error_of_theirs(error: Exception, target: str) -> Exception:
    """Return what to say about an error in another's code; one of our own stays as it is."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    elif _is_ours(error):
        return error
    else:
        place = line_of(error)
    module, _, name = target.partition(":")
    show = f'python -c "import {module}; model, batch = {module}.{name}(); model(**batch)"'
    said = str(error).strip().splitlines() or [""]
    return ConfigError.of(
        place, f"{target} raised {type(error).__name__}: {said[0]}", f"Mend it; {show} shows it alone"
    )


def pick_samples(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return the first ``count`` samples with memory of which no two share a page."""
    picked: list[Sample] = []
    seen: set[str] = set()
    for sample in samples:
        if len(picked) < count and sample.has_memory and seen.isdisjoint(sample.pages):
            picked.append(sample)
            seen.update(sample.pages)
    return picked


def other_memory(
    batch: Mapping[str, torch.Tensor], dataset: MemoryDataset, store: FeatureStore | None, samples: Sequence[Sample]
) -> dict[str, torch.Tensor]:
    """Return the batch with the memory of other pages, token for token in the same places of the page.

    Each page is replaced by the next one of the dataset; where there is only one page, its tokens (or its
    rows of pixels) come in reverse.
    """
    pages = [page for sample in samples for page in sample.pages]
    hashes = dataset.page_hashes()
    following = dict(zip(hashes, [*hashes[1:], hashes[0]], strict=True))
    others = [following[page] for page in pages]
    name, axis = ("pixel_values", 2) if store is None else ("memory_features", 0)
    if others == pages:
        changed = batch[name].flip(axis)
    elif store is None:
        changed = torch.from_numpy(pixel_batch([dataset.page(page) for page in others]))
    else:
        changed = store.gather(others, [dataset.kept(page) for page in pages])
    return {**batch, name: changed}

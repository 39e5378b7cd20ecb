"""The adapter package: four files that say what the adapter is and where it came from.

adapter.safetensors   proj and the feature statistics (`ocrmem train` writes it)
config.json           MEMConfig: base, encoder, dimensions, page settings (`ocrmem train` writes it)
README.md             model card: base, encoder, data, metrics, how to load, limits
provenance.json       git commit, data and dataset hashes, params, versions, metrics, hash of the gradient
                      report and of the adapter that training began with, the sha256 of the other three files,
                      and its own
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from ocrmem.config import RunConfig
from ocrmem.dataset.manifest import manifest_of
from ocrmem.errors import CheckFailed, Problem
from ocrmem.evaluation.result import EVALUATION, metrics_of
from ocrmem.facts import ADAPTER_FILES, MANIFEST, MODEL_CARD, PROVENANCE, SMOKE_REPORT, TRAIN_REPORT
from ocrmem.files import replacing_directory, sha256_file, write_json, write_text
from ocrmem.json_files import Evaluation, MemoryConfig, SmokeReport, TrainReport, read_json, with_sha256
from ocrmem.package import PACKAGE_FORMAT, adapter_sha256, package_sha256
from ocrmem.secrets import redact_uri
from ocrmem.tracking import without_secrets
from ocrmem.versions import versions

_VERSIONS_OF = ("torch", "transformers", "safetensors", "numpy")
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def package_adapter(config: RunConfig, destination: Path) -> dict[str, Any]:
    """Copy the trained adapter to ``destination`` and add its model card and provenance.

    The same adapter, data, parameters and metrics give the same ``package_sha256`` on any machine and at any commit:
    library versions, places of files, and how it is registered and tracked do not enter it.

    Args:
        config: the run whose adapter/, dataset/manifest.json, evaluation.json and smoke/report.json are used.
        destination: the directory to write; what was there is replaced.

    Returns:
        The provenance as written to ``destination``/provenance.json.

    Raises:
        MissingInputError: an input is missing; names the verb that makes it.
    """
    source = Path(config.paths.adapter)
    manifest_path = Path(config.paths.dataset) / MANIFEST
    smoke_path = Path(config.paths.smoke) / SMOKE_REPORT
    memory_config = read_json(source / "config.json", MemoryConfig, made_by="train")
    manifest = manifest_of(manifest_path.parent)
    evaluation = read_json(config.paths.report(EVALUATION), Evaluation, made_by="evaluate")
    read_json(smoke_path, SmokeReport, made_by="smoke")

    params = config.as_dict()
    params["register"]["uri"] = redact_uri(params["register"]["uri"])
    params = without_secrets(params)
    provenance: dict[str, Any] = {
        "format": PACKAGE_FORMAT,
        "adapter_sha256": adapter_sha256(source),
        "data": {"source_sha256": manifest["source"]["sha256"], "dataset_manifest_sha256": sha256_file(manifest_path)},
        "params": params,
        "metrics": metrics_of(evaluation),
        "gradient_report_sha256": sha256_file(smoke_path),
    }
    provenance["package_sha256"] = package_sha256(provenance)
    trained = config.paths.report(TRAIN_REPORT)
    if os.path.lexists(trained) and (begun := read_json(trained, TrainReport, made_by="train").get("from_adapter")):
        provenance["from_adapter"] = begun
    provenance["git"] = git_state()
    provenance["versions"] = versions(*_VERSIONS_OF)

    with replacing_directory(destination) as directory:
        for name in ADAPTER_FILES:
            shutil.copyfile(source / name, directory / name)
        write_text(directory / MODEL_CARD, model_card(memory_config, provenance, evaluation))
        provenance["files"] = {name: sha256_file(directory / name) for name in (*ADAPTER_FILES, MODEL_CARD)}
        provenance = with_sha256(provenance)
        write_json(directory / PROVENANCE, provenance)
    return provenance


def check_reports(config: RunConfig) -> None:
    """Refuse an adapter without a passed smoke test and without reports of its own training and evaluation.

    Raises:
        MissingInputError: a report is missing; names the verb that makes it.
        CheckFailed: the smoke test did not pass, or a report is about another adapter than adapter/ holds.
    """
    problems = []
    smoke = Path(config.paths.smoke) / SMOKE_REPORT
    if not read_json(smoke, SmokeReport, made_by="smoke")["ok"]:
        message, remedy = "the gradient smoke test did not pass", "Run `ocrmem smoke` and fix what it reports"
        problems.append(Problem(str(smoke), message, remedy))
    actual = adapter_sha256(Path(config.paths.adapter))
    for name, schema, verb in ((EVALUATION, Evaluation, "evaluate"), (TRAIN_REPORT, TrainReport, "train")):
        path = config.paths.report(name)
        if verb == "train" and not os.path.lexists(path):
            continue  # an imported adapter was not trained here
        recorded = read_json(path, schema, made_by=verb)["adapter_sha256"]
        if recorded != actual:
            message = f"is about the adapter {recorded[:12]}, but {config.paths.adapter}/ holds {actual[:12]}"
            problems.append(Problem(str(path), message, f"Run `ocrmem {verb}` again"))
    if problems:
        raise CheckFailed(problems)


def model_card(memory_config: MemoryConfig, provenance: Mapping[str, Any], evaluation: Evaluation) -> str:
    """Return the package's README.md, laid out as Hugging Face's model cards (YAML head, then Markdown)."""
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
    )
    # The card is Markdown, so HTML escaping does not apply: names are quoted as JSON strings or code instead.
    environment.filters["quoted"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["code"] = lambda value: "`" + str(value).replace("`", "'").replace("\n", " ") + "`"
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        config=memory_config, provenance=provenance, metrics=provenance["metrics"], evaluation=evaluation
    )


def git_state() -> dict[str, Any]:
    """Return the working directory's commit and whether tracked files differ from it; None outside git."""
    # Without tags, `describe` gives the commit, and "-dirty" behind it where tracked files differ.
    command = ["git", "describe", "--always", "--abbrev=64", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    commit, _, dirty = done.stdout.strip().partition("-")
    return {"commit": commit, "dirty": bool(dirty)}

"""Write docs/schemas.json: the JSON schema of each file that verbs leave, and of what they print with --json.

make reference
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Collection, Iterator, Sequence
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from ocrmem import json_files
from ocrmem.config.schema import RunSettings
from ocrmem.encoder.comparison import Comparison
from ocrmem.files import write_text
from ocrmem.steps import COMMANDS
from ocrmem.workflow.compile_settings import PipelineSettings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "schemas.json"
# What a verb prints with these options or actions, instead of its function's result.
OTHER_RESULTS = {
    "render --preview": "ocrmem.dataset.preview:PreviewResult",
    "version --open": "ocrmem.versioning.dataset_versions:OpenResult",
    "encode PICTURE": "ocrmem.encoder.encode_pictures:PicturesResult",
    "train": "ocrmem.training.train:TrainResult",
    "train --plan": "ocrmem.planning.plan:PlanResult",
    "train --launcher kubernetes": "ocrmem.cluster.trainjob:TrainOnClusterResult",
    "train --dry-run": "ocrmem.cluster.dry_run:DryRunResult",
    "pipeline run": "ocrmem.workflow.local:RunResult",
    "pipeline compile": "ocrmem.workflow.compiling:CompileResult",
    "pipeline submit": "ocrmem.workflow.submitting:SubmitResult",
    "pipeline list": "ocrmem.workflow.compiled:ListResult",
}
# What a module names in its types without importing it.
NOT_IMPORTED = {"Comparison": Comparison}
# A file holds the fields of these, without those that are for the caller alone.
FILES: dict[str, tuple[list[str], set[str]]] = {
    "models/base.json": (["ocrmem.json_files:BaseReport"], set()),
    "validation.json": (["ocrmem.validation.validate:ValidateResult"], {"summary"}),
    "dataset/manifest.json": (["ocrmem.json_files:DatasetManifest"], set()),
    "checks/result.json": (["ocrmem.dataset.quality:CheckResult"], {"result", "summary"}),
    "features/manifest.json": (["ocrmem.json_files:FeatureManifest"], set()),
    "smoke/report.json": (["ocrmem.smoke_test:SmokeResult", "ocrmem.json_files:SmokeReport"], {"summary"}),
    "checkpoints/checkpoint-N/complete.json": (["ocrmem.json_files:CheckpointRecord"], set()),
    "train.json": (["ocrmem.training.train:TrainResult", "ocrmem.json_files:TrainReport"], {"summary"}),
    "adapter/config.json": (["ocrmem.json_files:MemoryConfig"], set()),
    "evaluation.json": (
        ["ocrmem.evaluation.evaluate:EvaluateResult", "ocrmem.json_files:Evaluation"],
        {"report", "summary"},
    ),
    "version.json": (["ocrmem.versioning.dataset_versions:VersionRecord", "ocrmem.json_files:PushedVersion"], set()),
    "registration.json": (["ocrmem.registry.registration:Registration"], set()),
    "registry/package/provenance.json": (["ocrmem.json_files:Provenance"], set()),
    "records/TASK.json": (["ocrmem.json_files:TaskRecord"], set()),
    "summary.json": (["ocrmem.workflow.summary:RunSummary"], set()),
}


class _Schema(GenerateJsonSchema):
    """Schemas without a title of each field: it would be the field's name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def kinds() -> Iterator[tuple[str, Any]]:
    """Yield each file and each verb with --json, and the type that says what it holds."""
    yield "params.yaml", RunSettings
    yield "pipeline compile --settings", PipelineSettings
    for name, (parts, without) in FILES.items():
        yield name, _record([_load(part) for part in parts], without, "File")
    results = {name: step.function for name, step in COMMANDS.items() if step.function} | OTHER_RESULTS
    for name, target in results.items():
        found = _load(target)
        kind = found if isinstance(found, type) else get_type_hints(found)["return"]
        yield f"{name} --json", _record((kind, json_files.Success), {"summary"})
    yield "--json, exit code above 0", json_files.Refusal


def text() -> str:
    """Return docs/schemas.json, a line for each file, verb and part."""
    named = list(kinds())
    refs, parts = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(kind)) for name, kind in named], schema_generator=_Schema
    )
    about = {
        "$schema": _Schema.schema_dialect,
        "title": "What ocrmem writes: each file, and each verb's object with --json",
        "type": "object",
        "properties": {name: refs[name, "validation"] for name, _ in named},
        "$defs": parts["$defs"],
    }
    lines = [f"{json.dumps(key)}: {_block(value)}" for key, value in about.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    rows = (f"{json.dumps(key)}: {json.dumps(item, ensure_ascii=False)}" for key, item in value.items())
    return "{\n" + ",\n".join(rows) + "\n}"


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@cache
def _known(kind: Any) -> Any:
    """Return a type as pydantic takes it in Python 3.11: the TypedDicts in it are typing_extensions'."""
    arguments = get_args(kind)
    if is_typeddict(kind):
        return _record([kind])
    if not arguments or get_origin(kind) is Literal:
        return kind
    if get_origin(kind) is Annotated:
        return Annotated[_known(arguments[0]), *kind.__metadata__]
    inner = tuple(_known(argument) for argument in arguments)
    return reduce(or_, inner) if isinstance(kind, UnionType) else get_origin(kind)[inner]


def _record(parts: Sequence[Any], without: Collection[str] = (), suffix: str = "Result") -> Any:
    """Return a TypedDict of the fields of ``parts``, of which the last says what a field is, but those ``without``."""
    fields: dict[str, Any] = {}
    for part in parts:
        for name, kind in get_type_hints(part, None, NOT_IMPORTED, include_extras=True).items():
            optional = get_origin(kind) is NotRequired or not part.__total__
            known = _known(get_args(kind)[0] if get_origin(kind) is NotRequired else kind)
            fields[name] = NotRequired[known] if optional else known
    chosen = {name: kind for name, kind in fields.items() if name not in without}
    made = TypedDict(parts[0].__name__.replace("Result", suffix), chosen)  # type: ignore[misc]
    made.__doc__ = " ".join((inspect.getdoc(parts[0]) or "").split())
    made.__module__ = parts[0].__module__
    return made


if __name__ == "__main__":
    write_text(TARGET, text())

"""The JSON files that ocrmem writes and reads again: their schemas, and reading them.

A file whose schema has ``sha256`` covers itself: the field holds the hash of all others (`with_sha256`), so that an
edit and a damaged byte are found before anything is made of them. What a schema does not name may be there.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ocrmem.errors import MissingInputError, OcrMemError
from ocrmem.files import sha256_json

T = TypeVar("T")
SHA256 = "sha256"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # hex of a sha256
Count = Annotated[int, Field(ge=0)]


Positive = Annotated[int, Field(gt=0)]
# Within the directory that holds the manifest: no root, and no way out.
PathWithin = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")]


class BaseModels(TypedDict):
    """A part of base.json."""

    sha256: Digest


class BaseReport(TypedDict):
    """base.json: how the tiny models were made."""

    settings_hash: Digest
    encoder: BaseModels
    language_model: BaseModels
    sha256: Digest


class ModelSource(TypedDict):
    """source.json: whose copy lies in ``models/base``."""

    name: str
    revision: str | None


class Shard(TypedDict):
    """A parquet file of a dataset."""

    path: PathWithin
    rows: Positive
    bytes: Positive
    sha256: Digest


class Counts(TypedDict):
    """Counts over samples, as `ocrmem.dataset.unfinished_shards.Counts` has them."""

    samples: dict[str, Count]
    with_memory: dict[str, Count]
    pages: Count
    history_tokens: Count
    memory_tokens: Count
    dropped_tokens: Count
    dropped_pages: Count
    left_out: Count
    content_tokens: NotRequired[Count]
    unknown_tokens: NotRequired[Count]
    longest_history: Count
    longest_sequence: Count


class DatasetCounts(Counts):
    """Counts of a whole dataset."""

    conversations: Count
    unique_pages: Count


class PageSettings(TypedDict):
    """Settings of the pages on which their readers depend."""

    page_size: Positive
    token_size: Positive


class MemorySettings(TypedDict):
    """Settings of the samples on which their readers depend."""

    context_threshold: Count
    max_seq_length: Positive
    drop_blank_tokens: bool


class DatasetSettings(TypedDict):
    """Settings that decide a dataset's bytes."""

    render: PageSettings
    model: MemorySettings


class Source(TypedDict):
    """The conversation files of a dataset."""

    sha256: Digest


class DatasetManifest(TypedDict):
    """manifest.json of a dataset."""

    schema_version: Literal[2]
    counts: DatasetCounts
    config: DatasetSettings
    source: Source
    shards: list[Shard]
    sha256: Digest


class PartFile(Shard):
    """A file of an unfinished shard: "pages", or the split of its samples."""

    kind: str


class PartRecord(TypedDict):
    """An unfinished shard that is complete."""

    files: list[PartFile]
    counts: Counts
    left_out: list[dict[str, str]]
    sha256: Digest


class FeatureFormat(TypedDict):
    """All that decides what a row of features holds, as `ocrmem.encoder.feature_store.RowFormat` has it."""

    weights_sha256: str
    features: str
    computed_in: str
    dtype: Literal["float32", "bfloat16", "float16"]
    page_size: Positive
    tokens: Positive
    feature_size: Positive


class FeatureManifest(TypedDict):
    """manifest.json of a feature store."""

    version: Literal[2]
    format: FeatureFormat
    shape: Annotated[list[Count], Field(min_length=3, max_length=3)]
    journal_sha256: Digest
    statistics: PathWithin
    statistics_sha256: Digest
    dataset_pages_sha256: str
    sha256: Digest


class SmokeReport(TypedDict):
    """report.json of the smoke test."""

    ok: bool
    sha256: Digest


class TrainReport(TypedDict):
    """train.json."""

    adapter_sha256: Digest
    from_adapter: NotRequired[Digest]
    sha256: Digest


class CheckpointFile(TypedDict):
    """A file of a checkpoint."""

    bytes: Count
    sha256: Digest


class CheckpointRecord(TypedDict):
    """complete.json of a checkpoint."""

    step: Count
    identity: dict[str, Any]
    open_loss: float
    logged_step: Count
    files: dict[PathWithin, CheckpointFile]
    sha256: Digest


class MemoryConfig(TypedDict):
    """What the model card says of an adapter's config.json."""

    base_model_name: str
    base_revision: NotRequired[str | None]
    ocr_model_name: str
    ocr_revision: NotRequired[str | None]
    features: str
    vision_embedding_size: Positive
    page_size: Positive
    token_size: Positive
    line_height: Positive
    context_threshold: Count
    lora: NotRequired[dict[str, Any]]


class VariantFigures(TypedDict):
    """What is compared of a variant's figures."""

    loss: float
    recall: float
    said: NotRequired[float]


class EvaluatedSamples(TypedDict):
    """How many samples were evaluated."""

    evaluated: Count


class Evaluation(TypedDict):
    """evaluation.json."""

    adapter_sha256: Digest
    samples: EvaluatedSamples
    memory: VariantFigures
    no_memory: VariantFigures
    shuffled: VariantFigures
    truncated: NotRequired[VariantFigures]
    mean_pooled: NotRequired[VariantFigures]
    full_text: NotRequired[VariantFigures]
    base_text: NotRequired[VariantFigures]
    counterfactual: NotRequired[VariantFigures]
    untrained: NotRequired[VariantFigures]
    random_encoder: NotRequired[VariantFigures]
    scrambled: NotRequired[VariantFigures]
    random_answer: NotRequired[VariantFigures]
    compression_ratio: float
    warnings: NotRequired[list[str]]
    sha256: Digest


class PushedVersion(TypedDict):
    """version.json."""

    md5: str
    dataset_manifest_sha256: Digest
    sha256: Digest


class LastRegistration(TypedDict):
    """What the next `register` asks of registration.json."""

    package_sha256: str
    wandb: dict[str, str] | None


class ProblemRecord(TypedDict):
    """A problem, as `ocrmem.errors.Problem.as_dict` writes it."""

    place: str
    message: str
    remedy: str
    count: NotRequired[int]
    others: NotRequired[list[str]]


class Success(TypedDict):
    """What a verb prints with --json besides its result, whose ``summary`` is left out."""

    ok: Literal[True]


class Refusal(TypedDict):
    """What a verb prints with --json when its exit code is above 0."""

    ok: Literal[False]
    problems: list[ProblemRecord]


class TaskRecord(TypedDict):
    """A task's record, as `ocrmem.workflow.records.Record` has it."""

    step: str
    status: str
    started: float
    seconds: float | None
    summary: list[str]
    metrics: dict[str, float]
    problems: list[ProblemRecord]
    exit_code: int | None
    headline: NotRequired[str]
    warnings: NotRequired[list[str]]
    pid: NotRequired[int | None]


class WeightIndex(TypedDict):
    """model.safetensors.index.json of Hugging Face: the file of each tensor."""

    weight_map: dict[str, str]


class PackageData(TypedDict):
    """The data of an adapter: hashes of the conversations and of the dataset's manifest."""

    source_sha256: Digest
    dataset_manifest_sha256: Digest


class Provenance(TypedDict):
    """provenance.json of an adapter package."""

    format: int
    adapter_sha256: Digest
    data: PackageData
    params: dict[str, Any]
    metrics: dict[str, Any]
    gradient_report_sha256: Digest
    package_sha256: Digest
    from_adapter: NotRequired[Digest]
    git: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, Digest]
    sha256: Digest


def with_sha256(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``value`` with the hash of itself in ``sha256``; one that it has is replaced."""
    rest = {name: item for name, item in value.items() if name != SHA256}
    # As it will be read: JSON has neither tuples nor keys that are numbers.
    return {**rest, SHA256: sha256_json(json.loads(json.dumps(rest)))}


def read_json(
    path: Path,
    schema: type[T],
    *,
    made_by: str,
    remedy: str | None = None,
    error: type[OcrMemError] = MissingInputError,
) -> T:
    """Read a JSON file that the verb ``made_by`` writes.

    Args:
        schema: a TypedDict; with a field ``sha256`` the file must have that hash.
        made_by: the verb that writes the file.
        remedy: what to do about a file that cannot be used; None: to run the verb again.
        error: what to raise.

    Returns:
        The file's content, fields that the schema does not name included.

    Raises:
        MissingInputError: or ``error``: the file is not there, cannot be read, is not JSON, has not the hash that it
            says, or does not fit the schema; names file and field.
    """
    again = remedy or f"Delete it and run `ocrmem {made_by}` again"
    try:
        value = json.loads(path.read_bytes())
        if SHA256 in schema.__annotations__:
            _require_hash(path, value, again, error)
        _validator(cast(Hashable, schema)).validate_python(value, strict=True)
    except FileNotFoundError:
        raise error.of(str(path), "is not there", remedy or f"Run `ocrmem {made_by}` first") from None
    except OSError as fault:
        raise error.of(str(path), f"cannot be read ({fault.strerror})", f"Make it readable. {again}") from None
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "it"
        raise error.of(str(path), f"is not as ocrmem writes it ({field}: {first['msg']})", again) from None
    except (ValueError, RecursionError) as fault:  # not JSON, not UTF-8, thousands of digits, or of brackets
        raise error.of(str(path), f"is not valid JSON ({fault})", again) from None
    found: T = value
    return found


def _require_hash(path: Path, value: Any, remedy: str, error: type[OcrMemError]) -> None:
    if not isinstance(value, dict):
        raise error.of(str(path), f"holds a {type(value).__name__}, not an object", remedy)
    if SHA256 not in value:
        raise error.of(str(path), f"has no {SHA256} of itself: an earlier ocrmem wrote it, or it was changed", remedy)
    if with_sha256(value)[SHA256] != value[SHA256]:
        raise error.of(str(path), "was changed or damaged: it has not the sha256 that it says", remedy)


@lru_cache
def _validator(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)

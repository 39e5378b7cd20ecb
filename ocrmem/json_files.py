"""The JSON files that ocrmem writes and reads again: their schemas, and reading them.

A file whose schema has ``sha256`` covers itself: the field holds the hash of all others (`with_sha256`), so that an
edit and a damaged byte are found before anything is made of them. What a schema does not name may be there.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ocrmem.errors import MissingInputError, OcrMemError
from ocrmem.files import sha256_json

T = TypeVar("T")
SHA256 = "sha256"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # hex of a sha256
Count = Annotated[int, Field(ge=0)]


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

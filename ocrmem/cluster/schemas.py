"""Which of our fields the API server knows: its OpenAPI schemas beside the objects that we send it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
# What k8s/base/runtime.yaml says beside its pods; a test compares the two.
RUNTIME_FIELDS: Object = {
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {
            "spec": {
                "network": {"publishNotReadyAddresses": True},
                "failurePolicy": {
                    "restartStrategy": "",
                    "maxRestarts": 1,
                    "rules": [
                        {"name": "", "action": "", "targetReplicatedJobs": [""], "onJobFailureReasons": [""]},
                    ],
                },
                "replicatedJobs": [
                    {
                        "name": "",
                        "template": {"metadata": {"labels": {}}, "spec": {"backoffLimit": 0, "podFailurePolicy": {}}},
                    }
                ],
            }
        },
    }
}


def unknown_fields(schemas: dict[str, Object], kind: str, value: Object) -> list[str]:
    """Return the fields of an object that a server does not know, dotted, each once; what is below one is not listed.

    Args:
        schemas: ``components.schemas`` of an OpenAPI v3 document.
        kind: of the object; a kind without a schema is itself unknown.
    """
    for schema in schemas.values():
        kinds = schema.get("x-kubernetes-group-version-kind") or []
        if any(entry.get("kind") == kind for entry in kinds):
            return list(dict.fromkeys(_unknown(schemas, schema, value, "")))
    return [kind]


def _unknown(schemas: dict[str, Object], schema: Object, value: Any, place: str) -> Iterator[str]:
    schema = _resolved(schemas, schema)
    if isinstance(value, list):
        for item in value:
            yield from _unknown(schemas, schema.get("items") or {}, item, place)
    elif isinstance(value, dict):
        fields, others = schema.get("properties"), schema.get("additionalProperties")
        free = schema.get("x-kubernetes-preserve-unknown-fields") or fields is None
        for name, inner in value.items():
            where = f"{place}.{name}" if place else name
            if fields and name in fields:
                yield from _unknown(schemas, fields[name], inner, where)
            elif isinstance(others, dict):
                yield from _unknown(schemas, others, inner, where)
            elif not free and not others:
                yield where


def _resolved(schemas: dict[str, Object], schema: Object) -> Object:
    """Follow ``$ref``, and ``allOf`` or ``anyOf`` around one (with null beside it, for what may be absent)."""
    while True:
        inner = schema
        for key in ("allOf", "anyOf"):
            kept = [entry for entry in schema.get(key) or [] if entry.get("type") != "null"]
            if len(kept) == 1:
                inner = kept[0]
        if "$ref" in inner:
            schema = schemas[inner["$ref"].rpartition("/")[2]]
        elif inner is not schema:
            schema = inner
        else:
            return schema

"""Values of Kubernetes in settings: quantities, object names, tolerations, references to Secrets.

The forms are those of https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and of the
quantities in https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field

from ocrmem.config.section import form

WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
KEY = rf"({SUBDOMAIN}/)?{WORD}"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"

_QUANTITY = re.compile(
    r"\+?(?P<number>\d+\.?\d*|\.\d+)(?:(?P<unit>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?\d{1,2}))?", re.ASCII
)
_SECRET_ENV = re.compile(rf"(?P<variable>{VARIABLE})=(?P<secret>{SUBDOMAIN})/(?P<key>[-._A-Za-z0-9]+)")
_TOLERATION = re.compile(
    rf"(?P<key>{KEY})(?:=(?P<value>{WORD}))?(?::(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?"
)
_POWERS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_POWERS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse_quantity(text: str) -> Decimal | None:
    """Return a Kubernetes quantity as a number (bytes or cores); None if it is not one, or is negative."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    number, unit = Decimal(match["number"]), match["unit"]
    if unit in _BINARY_POWERS:
        return number * 2 ** _BINARY_POWERS[unit]
    return number.scaleb(_POWERS[unit] if unit else int(match["exponent"] or 0))


def parse_toleration(text: str) -> dict[str, str] | None:
    """Return ``key=value:Effect``, ``key:Effect`` or ``key`` as a toleration; None for any other form."""
    match = _TOLERATION.fullmatch(text)
    if match is None:
        return None
    toleration = {"key": match["key"], "operator": "Exists"}
    if match["value"] is not None:
        toleration |= {"operator": "Equal", "value": match["value"]}
    return toleration | ({"effect": match["effect"]} if match["effect"] else {})


def parse_secret_env(text: str) -> tuple[str, str, str] | None:
    """Return variable, Secret and key of ``VARIABLE=SECRET/KEY``; None for any other form."""
    match = _SECRET_ENV.fullmatch(text)
    return None if match is None else (match["variable"], match["secret"], match["key"])


Quantity = Annotated[
    str,
    Field(coerce_numbers_to_str=True, json_schema_extra={"format": "quantity"}),
    form(_QUANTITY.fullmatch, "Write a quantity as Kubernetes does: 4 or 500m for CPU, 32Gi for memory"),
]
ObjectName = Annotated[
    str,
    Field(json_schema_extra={"format": "name"}),
    form(
        lambda text: len(text) <= 253 and re.fullmatch(SUBDOMAIN, text),
        "Use lower-case letters, digits, - and ., as Kubernetes does in names: ocrmem-output",
    ),
]
OptionalName = Annotated[ObjectName | None, BeforeValidator(lambda name: None if name == "" else name)]
Image = Annotated[str, form(re.compile(r"\S+").fullmatch, "Give registry/name:tag or registry/name@sha256:digest")]
GpuResource = Annotated[
    str, form(re.compile(KEY).fullmatch, "Use nvidia.com/gpu, amd.com/gpu or what `kubectl describe node` calls it")
]
SecretVariable = Annotated[
    str, form(_SECRET_ENV.fullmatch, "Write VARIABLE=SECRET/KEY: the Secret's name, not its value")
]
Toleration = Annotated[
    str,
    form(
        _TOLERATION.fullmatch,
        "Write it as `kubectl taint` does: nvidia.com/gpu=present:NoSchedule, nvidia.com/gpu:NoSchedule",
    ),
]

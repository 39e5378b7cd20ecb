"""An adapter on disk, bare or as a package: what identifies it, and that its files are what was written.

A package is four files. provenance.json lists the sha256 of the other three and covers itself; ``package_sha256``
follows from what it says of adapter, data, settings and metrics, so none of these can be changed alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocrmem.errors import MissingInputError, ModelError, Problem
from ocrmem.facts import ADAPTER_FILES, MODEL_CARD, PACKAGE_FILES, PROVENANCE
from ocrmem.files import sha256_file, sha256_json
from ocrmem.json_files import Provenance, read_json

PACKAGE_FORMAT = 2
_AGAIN = "Download the package again, or run `ocrmem register` on the adapter that you mean"
# What an adapter depends on: not places of files or jobs, nor how it is registered or tracked.
_WITHOUT_EFFECT = ("register", "version", "tracking", "kubernetes", "paths")
_IDENTITY = ("format", "adapter_sha256", "data", "metrics", "gradient_report_sha256")


def adapter_sha256(directory: Path) -> str:
    """Hash an adapter's weights and its config together, as `files.sha256_tree` hashes a directory of just these two.

    Model card and provenance do not count, so a package has the hash of the adapter it was made from.

    Raises:
        MissingInputError: one of the two files does not exist.
    """
    for name in ADAPTER_FILES:
        if not (directory / name).is_file():
            raise MissingInputError.of(str(directory / name), "is not there", "Run `ocrmem train` first")
    return sha256_json([[name, sha256_file(directory / name)] for name in sorted(ADAPTER_FILES)])


def package_sha256(provenance: Mapping[str, Any]) -> str:
    """Return what identifies a package: the same for the same adapter, data, settings and metrics on any machine.

    Args:
        provenance: what provenance.json says of these; other fields do not enter.
    """
    params = {name: section for name, section in provenance["params"].items() if name not in _WITHOUT_EFFECT}
    params["train"] = {name: value for name, value in params["train"].items() if name != "from_adapter"}
    params["data"] = {name: value for name, value in params["data"].items() if name not in ("path", "workers")}
    return sha256_json({name: provenance[name] for name in _IDENTITY} | {"params": params})


def is_package(path: Path) -> bool:
    """Return whether a directory is a package, a damaged one included, rather than a bare adapter of `ocrmem train`."""
    return any(os.path.lexists(path / name) for name in (MODEL_CARD, PROVENANCE))


def read_provenance(path: Path) -> Provenance:
    """Read what a package says of itself; the files that it lists are not looked at.

    Raises:
        ModelError: provenance.json is missing, unreadable or was changed.
    """
    return read_json(path / PROVENANCE, Provenance, made_by="register", remedy=_AGAIN, error=ModelError)


def verify_package(path: Path, package: str | None = None) -> Provenance:
    """Check that a package holds the files that its provenance records and nothing points out of it.

    Args:
        path: the package's directory.
        package: the ``package_sha256`` that it must have; None: any.

    Returns:
        The provenance.

    Raises:
        ModelError: provenance.json is missing, unreadable or was changed; a file is missing, was changed or is a link
            out of the package; or it is another package. Names each file.
    """
    _refuse_links(path)
    provenance = read_provenance(path)
    listed, expected = set(provenance["files"]), set(PACKAGE_FILES) - {PROVENANCE}
    if odd := sorted(listed ^ expected):
        message = f"lists {', '.join(sorted(listed))}, and not just {', '.join(sorted(expected))} ({odd[0]!r})"
        raise ModelError.of(str(path / PROVENANCE), message, _AGAIN)
    problems = []
    for name, digest in provenance["files"].items():
        file = path / name
        if not file.is_file():
            problems.append(_unlike(file, "is not there, although provenance.json lists it"))
        elif (actual := sha256_file(file)) != digest:
            problems.append(_unlike(file, f"has sha256 {actual[:12]}, but provenance.json says {digest[:12]}"))
    if not problems and adapter_sha256(path) != provenance["adapter_sha256"]:
        problems.append(_unlike(path / PROVENANCE, "names another adapter_sha256 than its files have"))
    if not problems and (found := package_sha256(provenance)) != provenance["package_sha256"]:
        message = f"says package_sha256 {provenance['package_sha256'][:12]}, and its fields give {found[:12]}"
        problems.append(_unlike(path / PROVENANCE, message))
    if not problems and package not in (None, provenance["package_sha256"]):
        message = f"is of package {provenance['package_sha256'][:12]}, and {str(package)[:12]} was wanted"
        problems.append(_unlike(path / PROVENANCE, message))
    if problems:
        raise ModelError(problems)
    return provenance


def _refuse_links(path: Path) -> None:
    """Refuse a package of which a file lies elsewhere: what is read there is not what was packed."""
    home = os.path.realpath(path)
    for name in PACKAGE_FILES:
        file = path / name
        if file.is_symlink() and os.path.dirname(os.path.realpath(file)) != home:
            remedy = "Copy the package with the files that its links name (`cp -rL`), if you trust them"
            raise ModelError.of(str(file), f"is a link out of the package, to {file.readlink()}", remedy)


def _unlike(file: Path, message: str) -> Problem:
    return Problem(str(file), f"the adapter is not what its provenance says: {file.name} {message}", _AGAIN)

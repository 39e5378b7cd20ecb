"""constraints.txt locks, by version and hash, everything that pyproject.toml asks for."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")
# `name==version ; marker \` and a line a hash. A package may be locked once for each of several markers.
ENTRIES = [entry.replace("\\\n", " ").split("--hash=") for entry in re.split(r"\n(?=[a-z0-9])", LOCK)[1:]]
LOCKED: dict[str, list[tuple[str, Marker | None]]] = {}
for text, *_ in ENTRIES:
    pinned = Requirement(text.strip())
    [version] = pinned.specifier
    LOCKED.setdefault(canonicalize_name(pinned.name), []).append((version.version, pinned.marker))


def locked_here(name: str) -> str | None:
    """The version that is locked for this Python on this system."""
    found = LOCKED.get(canonicalize_name(name), [])
    return next((version for version, marker in found if marker is None or marker.evaluate()), None)


def required() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for: extras by name, and what everything and what building needs."""
    project = PROJECT["project"]
    groups = {"": project["dependencies"], "build-system": PROJECT["build-system"]["requires"]}
    groups |= project["optional-dependencies"]
    return {name: [Requirement(text) for text in texts] for name, texts in groups.items()}


def test_every_entry_is_one_version_with_hashes_of_its_files() -> None:
    assert len(ENTRIES) > 200
    for text, *hashes in ENTRIES:
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+(?: *; [^\\]+)?\s*", text), text
        assert hashes, f"{text} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", one) for one in hashes), text


@pytest.mark.parametrize("group", required())
def test_what_pyproject_asks_for_is_locked_in_a_version_that_it_allows(group: str) -> None:
    for requirement in required()[group]:
        if requirement.name == "ocrmem":  # an extra of ours that is made of others
            continue
        version = locked_here(requirement.name)
        assert version is not None, f"{requirement} is not in constraints.txt: run `make lock UPGRADE=`"
        assert requirement.specifier.contains(version), f"{requirement}, but {version} is locked: run `make lock`"


def test_what_the_installed_libraries_ask_for_is_locked_too() -> None:
    """The whole closure, by the metadata of what is installed: nothing would be resolved, and so unchecked, anew."""
    installed = required()
    del installed["docs"]  # of `make docs` alone
    waiting = [one for requirements in installed.values() for one in requirements if one.name != "ocrmem"]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        extras = ["", *requirement.extras]
        for extra in extras:
            key = (canonicalize_name(requirement.name), extra)
            if key in seen:
                continue
            seen.add(key)
            for text in importlib.metadata.requires(requirement.name) or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    assert locked_here(needed.name), f"{requirement.name} needs {needed}: run `make lock UPGRADE=`"
                    waiting.append(needed)
    assert len(seen) > 200


def test_what_is_installed_here_is_what_is_locked() -> None:
    other = {}
    for name in LOCKED:
        version = locked_here(name)
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version is not None and installed != version:
            other[name] = (installed, version)
    assert other == {}, "run `make install`"

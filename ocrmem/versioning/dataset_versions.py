"""Push the dataset to the DVC remote, and open it again by its hash.

    ocrmem version                                # hash it, push what the remote lacks, write version/dataset.dvc
    ocrmem version --open HASH --output DIR       # and back again

Neither a git repository nor a writable dataset is needed, since a pipeline's pod has neither. `dvc pull` finds what is
pushed here, and the hash is the one that `dvc.lock` has for the same dataset.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypedDict

import yaml

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.dataset.manifest import read_manifest, warnings_of
from ocrmem.errors import ConfigError, DataError
from ocrmem.facts import MANIFEST
from ocrmem.files import locking, replacing_directory, sha256_file, write_json, write_text
from ocrmem.json_files import with_sha256
from ocrmem.storage import is_s3, store_at
from ocrmem.verdicts import warning_lines
from ocrmem.versioning.dvc_remote import DvcRemote, Listing, list_directory

VERSION = "version.json"
# In a folder of its own: a dataset.dvc beside dvc.yaml would claim the same output as the stage `render`.
DVC_FILE = "version/dataset.dvc"
_HASH = re.compile(r"(?P<md5>[0-9a-f]{32})(?:\.dir)?")


class VersionRecord(TypedDict):
    """version.json: ``md5`` is the dataset's hash (``....dir``), ``pushed`` the number of objects transferred."""

    md5: str
    files: int
    bytes: int
    remote: str | None
    pushed: int
    dvc_file: str
    dataset_manifest_sha256: str
    warnings: list[str]  # what makes the dataset less than it seems


class VersionResult(VersionRecord):
    """version.json, and lines for a person."""

    summary: list[str]


class OpenResult(TypedDict):
    """A dataset that was opened; ``fetched`` is the number of files transferred."""

    md5: str
    files: int
    bytes: int
    dataset: str
    fetched: int
    warnings: list[str]
    summary: list[str]


@locking("version", lambda config: config.paths.report(VERSION))
def version_dataset(config: RunConfig) -> VersionResult:
    """Push ``paths.dataset`` to the DVC remote and report its hash.

    A dataset that the remote holds already is hashed and compared, and nothing is transferred.

    Args:
        config: sections version and paths are used.

    Raises:
        ConfigError: no remote is configured, or it cannot be used: a key, a bucket or an answer is missing. This is
            found before the dataset is read.
        MissingInputError: there is no dataset.
        DataError: the dataset is incomplete, or was changed while it was read.
    """
    remote = _answering_remote(config)
    dataset = Path(config.paths.dataset)
    read_manifest(dataset)
    before = _stamps(dataset)
    listing = list_directory(dataset)
    pushed = remote.push(listing, dataset)
    if _stamps(dataset) != before:
        remedy = "Run `ocrmem version` again when nothing writes to it"
        raise DataError.of(str(dataset), "was changed while it was hashed and pushed", remedy)
    dvc_file = config.paths.report(DVC_FILE)
    # What `dvc add dataset` would write.
    entry = {"md5": listing.oid, "size": listing.size, "nfiles": len(listing.files), "hash": "md5", "path": "dataset"}
    write_text(dvc_file, yaml.safe_dump({"outs": [entry]}, sort_keys=False))
    result: VersionRecord = {
        "md5": listing.oid,
        "files": len(listing.files),
        "bytes": listing.size,
        "remote": config.version.remote,
        "pushed": pushed,
        "dvc_file": dvc_file.as_posix(),
        "dataset_manifest_sha256": sha256_file(dataset / MANIFEST),
        "warnings": warnings_of(dataset),
    }
    write_json(config.paths.report(VERSION), with_sha256(result))
    done = f"Pushed {pushed} objects to" if pushed else "Nothing to push: it is in"
    return {
        **result,
        "summary": [
            f"dataset md5 {listing.oid}: {result['files']} files, {result['bytes']:,} bytes.",
            f"{done} {config.version.remote}.",
            f"{dvc_file} brings it back with `dvc pull` in a repository that has this remote; so does",
            f"`ocrmem version --open {listing.oid}`.",
            *warning_lines(result["warnings"]),
        ],
    }


def open_dataset(config: RunConfig, digest: str, output: Path | str | None = None) -> OpenResult:
    """Fetch a dataset by its hash; it replaces ``output`` once all of its files are verified.

    Args:
        config: ``version.remote`` is used.
        digest: ``md5`` of a `VersionResult`, with or without ``.dir``.
        output: the directory to write; it must be new, empty or hold a dataset. None: ``paths.dataset``.

    Raises:
        ConfigError: the hash is invalid, the remote cannot be used or does not hold it, or ``output`` holds something
            else.
        DataError: what the remote holds does not match the hash; names the files.
    """
    match = _HASH.fullmatch(digest)
    if match is None:
        raise ConfigError.of("--open", f"{digest!r} is not a dataset's hash", "Give the md5 that version.json holds")
    oid = f"{match['md5']}.dir"
    target = Path(output or config.paths.dataset)
    holds_dataset = (target / MANIFEST).is_file()
    if target.exists() and not holds_dataset and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError.of("--output", f"{target} holds something other than a dataset", "Name a new directory")
    fetched = 0
    if holds_dataset and (listing := list_directory(target)).oid == oid:
        note(f"{target} already holds that dataset.")
    else:
        remote = _answering_remote(config)
        listing = remote.listing(oid)
        with replacing_directory(target, "version --open") as directory:
            remote.fetch(listing, directory)
            _verify(listing, directory, config)
        fetched = len(listing.files)
    warnings = warnings_of(target)
    size = sum((target / name).stat().st_size for name in listing.files)
    return {
        "md5": oid,
        "files": len(listing.files),
        "bytes": size,
        "dataset": target.as_posix(),
        "fetched": fetched,
        "warnings": warnings,
        "summary": [f"{target}: {len(listing.files)} files, {size:,} bytes, md5 {oid}.", *warning_lines(warnings)],
    }


def _answering_remote(config: RunConfig) -> DvcRemote:
    section = config.version
    if section.remote is None:
        remedy = "Set it to a directory or to s3://bucket/prefix, for example with --set"
        raise ConfigError.of("version.remote", "is not set", remedy)
    store = store_at(section.remote, section.endpoint_url, "version.remote")
    # A bucket is not written to: a second `version` must change nothing there. `preflight` tries it.
    if problem := store.problem(write=not is_s3(section.remote)):
        raise ConfigError(problem)
    return DvcRemote(section.remote, section.endpoint_url, store)


def _verify(listing: Listing, directory: Path, config: RunConfig) -> None:
    found = list_directory(directory)
    if found.oid != listing.oid:
        wrong = sorted(name for name, md5 in listing.files.items() if found.files.get(name) != md5)
        message = f"its copy of {', '.join(wrong[:3])} does not match the hash"
        remedy = "Delete the damaged objects there and push the dataset again with `ocrmem version`"
        raise DataError.of(str(config.version.remote), message, remedy)


def _stamps(directory: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of every file."""
    files = ((path, path.stat()) for path in directory.rglob("*") if path.is_file())
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in files}

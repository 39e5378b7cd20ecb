"""Push the dataset to the DVC remote, and open it again by its hash.

    ocrmem version                                # hash it, push what the remote lacks, write version/dataset.dvc
    ocrmem version --open HASH --output DIR       # and back again

A pipeline's pod has no git repository and a read-only dataset, so neither is needed: what is pushed here,
`dvc pull` finds all the same, and the hash is the one that `dvc.lock` has for the same dataset.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.dataset.manifest import read_manifest
from ocrmem.errors import ConfigError, DataError
from ocrmem.facts import MANIFEST
from ocrmem.files import replacing_directory, sha256_file, write_json, write_text
from ocrmem.storage import is_s3, store_at
from ocrmem.versioning.dvc_remote import DvcRemote, Listing, list_directory

VERSION = "version.json"
# In a folder of its own: a dataset.dvc beside dvc.yaml would claim the same output as the stage `render`.
DVC_FILE = "version/dataset.dvc"
_HASH = re.compile(r"(?P<md5>[0-9a-f]{32})(?:\.dir)?")


def version_dataset(config: RunConfig) -> dict[str, Any]:
    """Push ``paths.dataset`` to the DVC remote and say under which hash it is there.

    A dataset that the remote holds already is hashed and compared, and nothing is transferred.

    Args:
        config: sections version and paths are used.

    Returns:
        ``md5`` (``....dir``), ``files``, ``bytes``, ``remote``, ``pushed`` (objects that were transferred),
        ``dvc_file`` (where the .dvc file is), ``dataset_manifest_sha256``, and ``summary``; all but the last
        are in version.json.

    Raises:
        ConfigError: no remote is configured, or it cannot be used: a key, a bucket or an answer is missing.
            This is found before the dataset is read.
        MissingInputError: there is no dataset.
        DataError: the dataset is not whole, or it was changed while it was read.
    """
    remote = _answering_remote(config)
    dataset = Path(config.paths.dataset)
    read_manifest(dataset)
    before = _stamps(dataset)
    listing = list_directory(dataset)
    pushed = remote.push(listing, dataset)
    if _stamps(dataset) != before:
        raise DataError.of(
            str(dataset), "was changed while it was hashed and pushed", "Run `ocrmem version` again when it is at rest"
        )
    dvc_file = config.paths.report(DVC_FILE)
    write_text(dvc_file, dvc_file_text(listing))
    result: dict[str, Any] = {
        "md5": listing.oid,
        "files": len(listing.files),
        "bytes": listing.size,
        "remote": config.version.remote,
        "pushed": pushed,
        "dvc_file": dvc_file.as_posix(),
        "dataset_manifest_sha256": sha256_file(dataset / MANIFEST),
    }
    write_json(config.paths.report(VERSION), result)
    done = f"Pushed {pushed} objects to" if pushed else "Nothing to push: it is in"
    return {
        **result,
        "summary": [
            f"dataset md5 {listing.oid}: {result['files']} files, {result['bytes']:,} bytes.",
            f"{done} {config.version.remote}.",
            f"{dvc_file} brings it back with `dvc pull` in a repository that has this remote; so does",
            f"`ocrmem version --open {listing.oid}`.",
        ],
    }


def open_dataset(config: RunConfig, digest: str, output: Path | str | None = None) -> dict[str, Any]:
    """Fetch a dataset by its hash; it takes its place once every file has been found to be the right one.

    Args:
        config: ``version.remote`` says where from.
        digest: what `version_dataset` gave as ``md5``, with or without ``.dir``.
        output: the directory to write; it must be new, empty or hold a dataset. None: ``paths.dataset``.

    Returns:
        ``md5``, ``files``, ``bytes``, ``dataset``, ``fetched`` (files that were transferred) and ``summary``.

    Raises:
        ConfigError: the hash has not the form of one, the remote cannot be used or does not hold it, or
            ``output`` holds something else.
        DataError: what the remote holds is not what the hash says; names the files.
    """
    match = _HASH.fullmatch(digest)
    if match is None:
        raise ConfigError.of("--open", f"{digest!r} is no hash of a dataset", "Give the md5 that version.json holds")
    oid = f"{match['md5']}.dir"
    target = Path(output or config.paths.dataset)
    if not _replaceable(target):
        raise ConfigError.of("--output", f"{target} holds something other than a dataset", "Name a new directory")
    fetched = 0
    if (target / MANIFEST).is_file() and (found := list_directory(target)).oid == oid:
        note(f"{target} is that dataset already.")
        listing = found
    else:
        remote = _answering_remote(config)
        listing = remote.listing(oid)
        with replacing_directory(target) as directory:
            remote.fetch(listing, directory)
            _verify(listing, directory, config)
        fetched = len(listing.files)
    size = sum((target / name).stat().st_size for name in listing.files)
    result = {"md5": oid, "files": len(listing.files), "bytes": size, "dataset": target.as_posix(), "fetched": fetched}
    return {**result, "summary": [f"{target}: {result['files']} files, {size:,} bytes, md5 {oid}."]}


def dvc_file_text(listing: Listing) -> str:
    """The .dvc file that `dvc add dataset` would write."""
    return (
        f"outs:\n- md5: {listing.oid}\n  size: {listing.size}\n  nfiles: {len(listing.files)}\n"
        "  hash: md5\n  path: dataset\n"
    )


def _answering_remote(config: RunConfig) -> DvcRemote:
    section = config.version
    if section.remote is None:
        raise ConfigError.of(
            "version.remote", "is not set", "Set it to a directory or to s3://bucket/prefix, for example with --set"
        )
    store = store_at(section.remote, section.endpoint_url, "version.remote")
    # A bucket is only asked: a second `version` is to change nothing there. `preflight` tries to write.
    if problem := store.problem(write=not is_s3(section.remote)):
        raise ConfigError(problem)
    return DvcRemote(section.remote, section.endpoint_url, store)


def _verify(listing: Listing, directory: Path, config: RunConfig) -> None:
    found = list_directory(directory)
    if found.oid == listing.oid:
        return
    wrong = sorted(name for name, md5 in listing.files.items() if found.files.get(name) != md5)
    raise DataError.of(
        str(config.version.remote),
        f"its copy of {', '.join(wrong[:3])} is not what the hash says",
        "Delete the damaged objects there and push the dataset again with `ocrmem version`",
    )


def _stamps(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    files = {path: path.stat() for path in directory.rglob("*") if path.is_file()}
    return {path.as_posix(): (stat.st_size, stat.st_mtime_ns) for path, stat in files.items()}


def _replaceable(target: Path) -> bool:
    return not target.exists() or (target.is_dir() and (not any(target.iterdir()) or (target / MANIFEST).is_file()))

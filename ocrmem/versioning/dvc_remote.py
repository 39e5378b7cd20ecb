"""DVC's content addressing and DVC's remotes, without a DVC repository: the only module that knows DVC.

A remote holds every file under its md5 (``files/md5/ab/cdef...``) and, for a directory, a ``.dir`` object: the JSON
list of its files. dvc-data, the library behind `dvc push`, hashes and transfers. The ``.dir`` object goes last, so an
interrupted push leaves nothing that could be taken for a dataset. No DVC configuration is read, since a person's own
remotes and caches do not apply to a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from ocrmem.console import Bar, progress_bar
from ocrmem.errors import ConfigError, DataError
from ocrmem.extras import not_installed
from ocrmem.health import ANSWER_SECONDS
from ocrmem.storage import Store, is_s3, s3_errors

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB
    from dvc_data.hashfile.tree import Tree
    from fsspec.callbacks import Callback


@dataclass(frozen=True)
class Listing:
    """The files of a directory as DVC names them."""

    oid: str  # the directory's hash: md5 of ``content``, with ``.dir`` behind it
    files: dict[str, str]  # md5 by the file's path below the directory
    content: bytes  # the ``.dir`` object
    size: int = 0  # bytes of all files, if known


def list_directory(directory: Path) -> Listing:
    """Hash every file of a directory.

    Raises:
        ConfigError: DVC is not installed.
        DataError: a file cannot be read.
    """
    with _installed("dvc"):
        from dvc.fs import LocalFileSystem, MemoryFileSystem
        from dvc_data.hashfile.build import IgnoreInCollectedDirError, build
        from dvc_data.hashfile.db import get_odb
    nowhere = get_odb(MemoryFileSystem(), "/ocrmem", hash_name="md5")
    count = sum(path.is_file() for path in directory.rglob("*"))
    try:
        with progress_bar(f"hashing {directory}", count) as bar:
            _, meta, found = build(
                nowhere, str(directory.absolute()), LocalFileSystem(), "md5", dry_run=True, callback=_on(bar)
            )
    except (OSError, IgnoreInCollectedDirError) as error:
        raise DataError.of(str(directory), f"cannot be hashed ({error})", "Run `ocrmem render` again") from None
    tree = cast("Tree", found)
    files = {"/".join(key): entry.value for key, _, entry in tree}
    return Listing(tree.oid, files, tree.as_bytes(), meta.size or 0)


class DvcRemote:
    """A DVC remote in a directory or a bucket.

    Args:
        url: the directory or ``s3://bucket/prefix``.
        endpoint_url: of an S3 service that is not Amazon's.
        store: the same place, which explains its errors.
    """

    def __init__(self, url: str, endpoint_url: str | None, store: Store) -> None:
        self._url = url
        self._store = store
        options: dict[str, Any] = {}
        with _installed("dvc_s3" if is_s3(url) else "dvc"):
            if is_s3(url):
                import dvc_s3  # noqa: F401

                options = {"connect_timeout": ANSWER_SECONDS, "read_timeout": 60}
                options |= {"endpointurl": endpoint_url} if endpoint_url else {}
            from dvc.fs import get_cloud_fs
            from dvc_data.hashfile.db import get_odb
        kind, settings, path = get_cloud_fs({}, url=url, **options)
        with self._errors():
            filesystem = kind(**settings)
            self._objects: HashFileDB = get_odb(filesystem, filesystem.join(path, "files", "md5"), hash_name="md5")

    def push(self, listing: Listing, directory: Path) -> int:
        """Transfer what the remote lacks, the list of files last; return the number of objects.

        Raises:
            ConfigError: a transfer failed; the list of files was not written then.
        """
        from dvc.fs import LocalFileSystem

        paths = {md5: str(directory.absolute() / name) for name, md5 in listing.files.items()}
        failed: list[BaseException] = []
        with self._errors():
            present = set(self._objects.oids_exist([*paths, listing.oid]))
            missing = {md5: path for md5, path in paths.items() if md5 not in present}
            if missing:
                with progress_bar(f"pushing to {self._url}", len(missing)) as bar:
                    self._objects.add(
                        list(missing.values()),
                        LocalFileSystem(),
                        list(missing),
                        check_exists=False,
                        on_error=lambda _, error: failed.append(error),
                        callback=_on(bar),
                    )
            if failed:
                raise failed[0]
            if listing.oid not in present:
                self._objects.add_bytes(listing.oid, listing.content)
        return len(missing) + (listing.oid not in present)

    def listing(self, oid: str) -> Listing:
        """Return what the remote holds under a hash.

        Raises:
            ConfigError: the remote does not hold it, or does not answer.
            DataError: the list of files is damaged, or names a file outside the dataset.
        """
        with self._errors():
            if not self._objects.exists(oid):
                remedy = "Check the hash and version.remote; `ocrmem version` pushes one"
                raise ConfigError.of("--open", f"{self._url} holds no dataset {oid}", remedy)
            content = self._objects.fs.cat_file(self._objects.oid_to_path(oid))
        if f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir" != oid:
            raise self._damaged(f"its list of files {oid} does not match the hash")
        files = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
        for name in files:
            # The hash proves that this is the list that was pushed, not who pushed it.
            if PurePosixPath(name).is_absolute() or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise self._damaged(f"{oid} names a file outside the dataset ({name!r})")
        return Listing(oid, files, content)

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Copy the files of a listing into a directory, without checking their content.

        Raises:
            ConfigError: the remote does not answer.
            DataError: it lacks some of the files.
        """
        from dvc.fs import LocalFileSystem, generic

        failed: list[BaseException] = []
        with self._errors(), progress_bar(f"fetching from {self._url}", len(listing.files)) as bar:
            generic.copy(
                self._objects.fs,
                [self._objects.oid_to_path(md5) for md5 in listing.files.values()],
                LocalFileSystem(),
                [str(directory / name) for name in listing.files],
                callback=_on(bar),
                on_error=lambda _from, _to, error: failed.append(error),
            )
            if any(isinstance(error, FileNotFoundError) for error in failed):
                raise self._damaged(f"files of {listing.oid} are missing there")
            if failed:
                raise failed[0]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the remote's errors into problems of its setting."""
        expected: tuple[type[Exception], ...] = (OSError, *s3_errors())
        try:
            yield
        except expected as error:
            raise ConfigError(self._store.explain(error)) from None

    def _damaged(self, message: str) -> DataError:
        return DataError.of(self._url, message, "Push the dataset again with `ocrmem version` from an intact copy")


@contextmanager
def _installed(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise not_installed("version", package) from None


def _on(bar: Bar) -> Callback:
    """Show DVC's progress on our bar."""
    from fsspec.callbacks import Callback

    class Advance(Callback):
        def relative_update(self, inc: int = 1) -> None:
            bar.advance(inc)

    return Advance()

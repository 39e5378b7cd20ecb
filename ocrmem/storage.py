"""Places outside the workspace that hold files: a directory (such as a mounted volume) or an S3 bucket.

The DVC remote of `version` and the packages of the Kubeflow Model Registry lie in one. `problem` checks beforehand
whether a place exists and can be written to, so that a missing key or bucket is found in a second instead of after a
run's work. Keys come from the environment or ~/.aws, as boto3 finds them.

S3 goes through boto3 rather than fsspec: s3fs reports a file whose access is refused as missing, and repeats a question
that got no answer five times.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from ocrmem.errors import ConfigError, ModelError, Problem, first_line
from ocrmem.extras import not_installed
from ocrmem.files import replacing_directory
from ocrmem.health import ANSWER_SECONDS
from ocrmem.retry import ATTEMPTS, causes
from ocrmem.secrets import redact

if TYPE_CHECKING:
    from botocore.client import BaseClient

_WRITE_CHECK = ".ocrmem-write-check"  # one fixed name: where deleting is not allowed, one empty object stays
_NO_KEYS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or make a profile in ~/.aws"
_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}


class Store(Protocol):
    """A place for directories of files, each under a name. What it cannot do raises ConfigError."""

    location: str

    def problem(self, *, write: bool) -> Problem | None:
        """Try the place itself; return what keeps it from being read (and written), or None."""

    def holds(self, name: str) -> bool:
        """Return whether there is a file of that name."""

    def upload(self, source: Path, name: str, *, last: str) -> str:
        """Put the files of ``source`` under ``name``, ``last`` after all others; return its URI."""

    def uri(self, name: str) -> str:
        """Return the URI of ``name``, which `store_at` takes."""

    def explain(self, error: BaseException) -> Problem:
        """Return what an error of this place means, and what to do."""

    def download(self, target: Path) -> None:
        """Copy all files of this place, at least one, into ``target``, which exists."""

    def fetch(self, name: str, target: Path) -> None:
        """Copy one file to ``target``; FileNotFoundError if there is none, ModelError if a link leads to it."""


def is_s3(location: str) -> bool:
    return location.startswith("s3://")


def store_at(location: str, endpoint_url: str | None, field: str) -> Store:
    """Return the place at a directory, ``file:///directory`` or ``s3://bucket/prefix``.

    Args:
        endpoint_url: of an S3 service that is not Amazon's.
        field: the setting that names the place, for problems.
    """
    if is_s3(location):
        return S3Store(location, endpoint_url, field)
    if location.startswith("file://"):
        location = unquote(urlsplit(location).path)
    return DirectoryStore(location, field)


class DirectoryStore:
    """A directory. It is never created, so that a volume that is not mounted is noticed."""

    def __init__(self, location: str, field: str) -> None:
        self.location = location
        self._root = Path(location)
        self._field = field

    def problem(self, *, write: bool) -> Problem | None:
        if not self._root.is_dir():
            message = f"{self.location} {'is not a directory' if self._root.exists() else 'is not there'}"
            return Problem(self._field, message, "Create it or mount it; ocrmem does not, lest it hide a missing mount")
        try:
            next(self._root.iterdir(), None)
            if write:
                with tempfile.TemporaryFile(dir=self._root):
                    pass
        except OSError as error:
            return self.explain(error)
        return None

    def holds(self, name: str) -> bool:
        return (self._root / name).is_file()

    def upload(self, source: Path, name: str, *, last: str) -> str:
        # One rename puts the whole directory in place, so the order of its files does not matter.
        try:
            with replacing_directory(self._root / name) as directory:
                shutil.copytree(source, directory, dirs_exist_ok=True)
        except OSError as error:
            raise ConfigError(self.explain(error)) from None
        return self.uri(name)

    def uri(self, name: str) -> str:
        return (self._root / name).resolve().as_uri()

    def download(self, target: Path) -> None:
        if problem := self.problem(write=False):
            raise ConfigError(problem)
        try:
            shutil.copytree(self._root, target, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise ConfigError(self.explain(error)) from None

    def fetch(self, name: str, target: Path) -> None:
        source = self._root / name
        if source.resolve() != self._root.resolve() / name:
            remedy = "Copy the files that its links name to their place, if you trust them"
            raise ModelError.of(str(source), "is a link out of its directory", remedy)
        if source.exists() and not source.is_file():
            raise ModelError.of(str(source), "is no file", "Put the file there")
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ConfigError(self.explain(error)) from None

    def explain(self, error: BaseException) -> Problem:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free space there" if full else "Check the directory's owner, permissions and mount"
        return Problem(self._field, f"{self.location} cannot be used ({_reason(error)})", remedy)


class S3Store:
    """A bucket, or its keys below a prefix."""

    def __init__(self, location: str, endpoint_url: str | None, field: str) -> None:
        self.location = location.rstrip("/")
        self._bucket, _, prefix = location.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/")
        self._endpoint = endpoint_url
        self._field = field

    def problem(self, *, write: bool) -> Problem | None:
        try:
            with self._client(patient=False) as client:
                client.list_objects_v2(Bucket=self._bucket, Prefix=self._key(""), MaxKeys=1)
                if write:
                    client.put_object(Bucket=self._bucket, Key=self._key(_WRITE_CHECK), Body=b"")
                    with suppress(client.exceptions.ClientError):  # a key that may write but not delete is enough
                        client.delete_object(Bucket=self._bucket, Key=self._key(_WRITE_CHECK))
        except ConfigError as error:
            return error.problems[0]
        return None

    def holds(self, name: str) -> bool:
        with self._client() as client:
            found = client.list_objects_v2(Bucket=self._bucket, Prefix=self._key(name), MaxKeys=1)
            return any(item["Key"] == self._key(name) for item in found.get("Contents", []))

    def upload(self, source: Path, name: str, *, last: str) -> str:
        files = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.name == last)
        with self._client() as client:
            for path in files:
                key = self._key(f"{name}/{path.relative_to(source).as_posix()}")
                client.upload_file(str(path), self._bucket, key)
        return self.uri(name)

    def uri(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def download(self, target: Path) -> None:
        below = self._key("") and self._key("") + "/"
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
            if not keys:
                remedy = "Check the address, or register the adapter again"
                raise ConfigError.of(self._field, f"{self.location} holds no files", remedy)
            for key in keys:
                path = target / key.removeprefix(below)
                if key.endswith("/") or not path.resolve().is_relative_to(target.resolve()):
                    continue  # a folder's marker, or a key that would land outside
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(self._bucket, key, str(path))

    def fetch(self, name: str, target: Path) -> None:
        if not self.holds(name):
            raise FileNotFoundError(errno.ENOENT, "is not there", self.uri(name))
        with self._client() as client:
            client.download_file(self._bucket, self._key(name), str(target))

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._prefix, name) if part)

    @contextmanager
    def _client(self, *, patient: bool = True) -> Iterator[BaseClient | Any]:
        """Give a client whose errors become ours; ``patient`` waits and retries, for transfers."""
        try:
            import boto3
            from boto3.exceptions import Boto3Error
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise not_installed(self._field, "boto3") from None
        settings = Config(
            connect_timeout=ANSWER_SECONDS,
            read_timeout=60 if patient else ANSWER_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS if patient else 1},
        )
        try:
            # A new session: boto3's default one keeps the credentials that it found first.
            yield boto3.Session().client("s3", endpoint_url=self._endpoint, config=settings)
        except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
            raise ConfigError(self.explain(error)) from None

    def explain(self, error: BaseException) -> Problem:
        """Return what an error of botocore (also as s3fs wraps it) means for this place, and what to do."""
        from botocore import exceptions as boto

        chain = list(causes(error))
        service = self._endpoint or "Amazon S3"
        response: Any = next((cause.response for cause in chain if isinstance(cause, boto.ClientError)), {})
        code = str(response.get("Error", {}).get("Code", ""))

        def caused_by(*kinds: type[Exception]) -> bool:
            return any(isinstance(cause, kinds) for cause in chain)

        if caused_by(boto.NoCredentialsError, boto.PartialCredentialsError):
            message, remedy = f"there are no AWS credentials for {self.location}", _NO_KEYS
        elif caused_by(boto.CredentialRetrievalError, boto.ProfileNotFound, boto.TokenRetrievalError):
            message, remedy = f"AWS credentials could not be read ({_reason(error)})", _NO_KEYS
        elif caused_by(boto.ConnectionError, boto.HTTPClientError):
            message = f"{service} does not answer ({_reason(error)})"
            remedy = "Check the endpoint_url beside it and the network, then run it again"
        elif code == "NoSuchBucket" or (code == "404" and not self._prefix):
            message = f"there is no bucket {self._bucket!r} at {service}"
            remedy = "Create the bucket, or fix the name; ocrmem does not create buckets"
        elif code in _REFUSED:
            message, remedy = f"{service} refuses the AWS credentials ({code})", _NO_KEYS
        elif code in ("AccessDenied", "403", "AllAccessDisabled"):
            message = f"{service} denies access to {self.location} ({code})"
            remedy = "Allow ListBucket, GetObject, PutObject and DeleteObject below it, or use another key"
        else:
            message = f"{self.location} at {service} cannot be used ({code + ': ' if code else ''}{_reason(error)})"
            remedy = "Check the address, the endpoint_url beside it and AWS_REGION"
        return Problem(self._field, message, remedy)


def s3_errors() -> tuple[type[Exception], ...]:
    """Return the errors that an S3 client raises; none if no client is installed."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return ()
    return BotoCoreError, ClientError


def _reason(error: BaseException) -> str:
    return redact(first_line(error)).rstrip(".")

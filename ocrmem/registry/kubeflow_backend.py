"""The Kubeflow Model Registry, through the kubeflow SDK's client. The only module that knows it.

That registry keeps names, versions and properties, and of the files only a URI: the package goes to ``register.store``
first. It has no aliases either. Here an alias is a custom property of the registered model,
``ocrmem.alias.champion = "3"``: one object, so that it means one version at any moment.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, OcrMemError, Problem
from ocrmem.extras import not_installed
from ocrmem.facts import PROVENANCE
from ocrmem.health import NoAnswerError, ask
from ocrmem.registry.backend import NAME_REMEDY, PACKAGE_TAG, Backend, Version
from ocrmem.retry import ATTEMPTS, Retry
from ocrmem.secrets import redact, redact_uri
from ocrmem.storage import Store, store_at

if TYPE_CHECKING:
    from model_registry.types import ModelVersion, RegisteredModel

TOKEN = "MODEL_REGISTRY_TOKEN"
# Where Kubeflow's own clients look: a path in the environment, or the pod's service account.
_TOKEN_PATH = "KF_PIPELINES_SA_TOKEN_PATH"
_POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_SET_TOKEN = f"Set {TOKEN} in the environment, or {_TOKEN_PATH} to a file that holds the token"
_MODELS = "/api/model_registry/v1/registered_models?pageSize=1"
_PORTS = {"http": 8080, "https": 443}  # the defaults of Kubeflow's client
_FIELD = "register.uri"
_AUTHOR = "ocrmem"
_ALIAS = "ocrmem.alias."
_METRIC = "ocrmem.metric."
_GIVE_UP_SECONDS = 60.0  # for one version, when others register in the same moment
_FORMAT: dict[str, Any] = {"model_format_name": "ocrmem-adapter", "model_format_version": "1"}


class KubeflowBackend(Backend):
    """A Kubeflow Model Registry, by the SDK's client, and the store that holds its packages."""

    def __init__(self, address: Address, config: RunConfig) -> None:
        from kubeflow.hub import ModelRegistryClient

        self._address, self._section, self._store = address, config.registry, _store(config)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="User access token is missing")
            self._client = ModelRegistryClient(address.url, author=_AUTHOR, user_token=address.token())

    @classmethod
    @contextmanager
    def open(cls, config: RunConfig, *, write: bool = False) -> Iterator[KubeflowBackend]:
        address = Address.of(config.registry.uri)
        if problem := address.problem():  # the SDK would wait five minutes for a registry that is silent
            raise ConfigError(problem)
        _import_sdk()
        with _errors(address):
            yield cls(address, config)

    @classmethod
    def problems(cls, config: RunConfig) -> list[Problem]:
        found = [Address.of(config.registry.uri).problem(), _store(config).problem(write=True)]
        return [problem for problem in found if problem is not None]

    def ensure_version(
        self, package: Path, provenance: dict[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> Version:
        from model_registry.exceptions import StoreError
        from mr_openapi.exceptions import BadRequestException, ConflictException, ServiceException

        name, digest = self._section.name, tags[PACKAGE_TAG]
        uri = self._upload(package, digest)
        retry = Retry(f"the registry {self._address.url}", _GIVE_UP_SECONDS, attempts=ATTEMPTS, first=0.1)
        number, made = 0, False
        while True:
            # A list may be late; so the number that was tried last is asked for by itself.
            tried = self._by_name(name, str(number)) if number else None
            versions = [*self._versions(name), *([tried] if tried else [])]
            if held := [v for v in versions if (v.custom_properties or {}).get(PACKAGE_TAG) == digest]:
                found = min(held, key=_number)
                # A registration that was cut off between the version and its artifact is completed.
                return _version(name, found, self._uri(name, found) or self._add_artifact(name, found, uri))
            if made:  # never a second time, however late it is seen
                if not retry.wait(None):
                    message = f"the registry {self._address.url} took {name} version {number} but does not show it"
                    raise ConfigError.of(_FIELD, message, "Run `ocrmem register` again")
                continue
            number = 1 + max(map(_number, versions), default=0)
            try:
                self._client.register_model(
                    name,
                    uri,
                    version=str(number),
                    author=_AUTHOR,
                    owner=_AUTHOR,
                    version_description="An optical memory adapter; see README.md in the package",
                    # JSON has no infinity, so a metric that is not finite goes as text.
                    metadata={**tags, **{_METRIC + k: v if math.isfinite(v) else str(v) for k, v in metrics.items()}},
                    **_FORMAT,
                )
                made = True
            except (StoreError, BadRequestException, ConflictException, ServiceException):
                # The number was taken in the same moment (servers differ in how they say so), or the answer to a
                # version that was made got lost: look again.
                if not retry.wait(None):
                    raise

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        held = self._client.get_model_version(version.name, str(version.number))
        properties = dict(held.custom_properties or {})
        if any(properties.get(key) != value for key, value in tags.items()):
            held.custom_properties = {**properties, **tags}
            self._client.update_model_version(held)

    def set_alias(self, version: Version, alias: str) -> None:
        model = self._client.get_model(version.name)
        properties = dict(model.custom_properties or {})
        if properties.get(_ALIAS + alias) != str(version.number):
            model.custom_properties = {**properties, _ALIAS + alias: str(version.number)}
            self._client.update_model(model)

    def holder(self, name: str, alias: str) -> Version | None:
        model = self._model(name)
        number = (model.custom_properties or {}).get(_ALIAS + alias) if model else None
        return None if number is None else self._complete(name, str(number))

    def newest(self, name: str) -> Version | None:
        numbers = sorted(map(_number, self._versions(name)), reverse=True)
        return next(filter(None, (self._complete(name, str(number)) for number in numbers if number)), None)

    def by_number(self, name: str, number: int) -> Version:
        if found := self._complete(name, str(number)):
            return found
        raise self._missing(f"{name} version {number}")

    def fetch(self, version: Version, name: str, target: Path) -> None:
        uri = version.uri or ""
        if not uri.startswith(("s3://", "file://")):
            message = f"lies at {uri!r}, which ocrmem cannot read"
            raise ConfigError.of(version.reference, message, "Copy it and name the directory")
        store_at(uri, self._section.endpoint_url, "register.store").fetch(name, target)

    def restore(self, version: Version, package: Path) -> None:
        name = self._package_name(version.tags[PACKAGE_TAG])
        if version.uri != self._store.uri(name):
            message = f"its files at {version.uri} are gone or damaged, and register.store is another place"
            raise ConfigError.of(version.reference, message, "Set register.store to the one that they were in")
        self._store.upload(package, name, last=PROVENANCE)

    def _upload(self, package: Path, digest: str) -> str:
        """Put the package into the store, under its hash; it is complete where its provenance.json is."""
        name, store = self._package_name(digest), self._store
        held = store.holds(f"{name}/{PROVENANCE}")
        return store.uri(name) if held else store.upload(package, name, last=PROVENANCE)

    def _package_name(self, digest: str) -> str:
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self._section.name)}/{digest}"

    def _model(self, name: str) -> RegisteredModel | None:
        try:
            return self._client.get_model(name)
        except ValueError:
            return None

    def _by_name(self, name: str, number: str) -> ModelVersion | None:
        from model_registry.exceptions import StoreError

        try:
            return self._client.get_model_version(name, number)
        except (ValueError, StoreError):  # no such version, or no such model
            return None

    def _complete(self, name: str, number: str) -> Version | None:
        """Return a version that has its artifact, or None."""
        found = self._by_name(name, number)
        uri = self._uri(name, found) if found else None
        return _version(name, found, uri) if found and uri else None

    def _versions(self, name: str) -> list[ModelVersion]:
        return list(self._client.list_model_versions(name)) if self._model(name) else []

    def _uri(self, name: str, version: ModelVersion) -> str | None:
        """Return where the version's package is; None for a version without an artifact."""
        try:
            return self._client.get_model_artifact(name, version.name).uri
        except ValueError:
            return None

    def _add_artifact(self, name: str, version: ModelVersion, uri: str) -> str:
        """Take the last step of the SDK's register_model, which it does not offer by itself."""
        from model_registry.core import ModelRegistryAPIClient
        from model_registry.types import ModelArtifact

        token, url = self._address.token(), self._address.url
        port = urlsplit(url).port or 0
        if url.startswith("https:"):
            api = ModelRegistryAPIClient.secure_connection(url, port, user_token=token or "")
        else:
            api = ModelRegistryAPIClient.insecure_connection(url, port, token)
        artifact = ModelArtifact(name=name, uri=uri, **_FORMAT)
        asyncio.run(api.upsert_model_version_artifact(artifact, str(version.id)))
        return uri

    def _missing(self, what: str) -> OcrMemError:
        return ConfigError.of(_FIELD, f"the registry {self._address.url} has no {what}", NAME_REMEDY)


@dataclass(frozen=True)
class Address:
    """A registry's base URL, ``http://host:port/path`` without a final slash."""

    url: str

    @classmethod
    def of(cls, uri: str) -> Address:
        """Read ``kubeflow+http://host[:port][/path]``.

        Raises:
            ConfigError: the port is invalid.
        """
        parts = urlsplit(uri.removeprefix("kubeflow+"))
        try:
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise ConfigError.of(_FIELD, f"is {redact_uri(uri)!r}", "Write kubeflow+http://host:port") from None
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return cls(f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}")

    def token(self) -> str | None:
        """Return the bearer token of the environment or of the pod, if there is one.

        Raises:
            ConfigError: there is none, and the registry's client refuses https without a token.
        """
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            with suppress(OSError):
                token = Path(os.environ.get(_TOKEN_PATH) or _POD_TOKEN).read_text(encoding="utf-8").strip()
        if not token and self.url.startswith("https:"):
            raise ConfigError.of(_FIELD, f"{self.url} needs a token, and there is none", _SET_TOKEN)
        return token or None

    def problem(self) -> Problem | None:
        """Ask for one registered model, within seconds; return what keeps the registry from answering, or None."""
        try:
            answer = ask(self.url + _MODELS, self.token())
        except ConfigError as error:
            return error.problems[0]
        except NoAnswerError as error:
            return self.silent(error)
        if answer.refused:
            return self.refused(answer.status, answer.reason)
        found = answer.json()
        return None if isinstance(found, dict) and "pageSize" in found else self.stranger()

    def refused(self, status: int, reason: str | None) -> Problem:
        """Return what an HTTP status of the registry means, and what to do."""
        text = f"the registry {self.url} answers {status} {redact(str(reason or '')).strip()}".rstrip()
        if status == 404:
            return Problem(_FIELD, f"{text}: there is no model registry at that address", "Check host, port and path")
        if status >= 500:
            return Problem(_FIELD, text, "Look at the registry's log; run this again when it works")
        remedies = {401: _SET_TOKEN, 403: "Give the token's account rights to write there"}
        return Problem(_FIELD, text, remedies.get(status, "Check the name and the registry's version (its API is v1)"))

    def silent(self, error: BaseException) -> Problem:
        """Return the problem of a registry that did not answer."""
        reason = redact(str(getattr(error, "reason", None) or error)).strip() or type(error).__name__
        remedy = "Check the address, that it is up, and that the network lets this machine reach it"
        return Problem(_FIELD, f"the registry {self.url} does not answer ({reason})", remedy)

    def stranger(self) -> Problem:
        """Return the problem of an answer that no model registry gives."""
        message = f"what answers at {self.url} is not a Kubeflow Model Registry"
        return Problem(_FIELD, message, "Check host, port and path")


def _store(config: RunConfig) -> Store:
    section = config.registry
    if section.store is None:  # a rule of the configuration says so too
        raise ConfigError.of("register.store", "is not set", "Set it to a shared directory or to s3://bucket/prefix")
    return store_at(section.store, section.endpoint_url, "register.store")


def _import_sdk() -> None:
    """Import the SDK, undoing what that does to the process' logging, and without its hints about ports.

    Raises:
        ConfigError: it is not installed.
    """
    handlers = list(logging.root.handlers)
    try:
        import kubeflow.hub  # noqa: F401
        import model_registry  # noqa: F401
    except ImportError:
        raise not_installed("register", "model_registry") from None
    finally:
        logging.root.handlers[:] = handlers
    logger = logging.getLogger("model-registry")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


@contextmanager
def _errors(address: Address) -> Iterator[None]:
    """Turn the SDK's errors into problems. Their text may hold request headers, so little of it is kept."""
    import aiohttp
    from model_registry.exceptions import StoreError
    from mr_openapi.exceptions import ApiException
    from pydantic import ValidationError

    try:
        yield
    except ApiException as error:
        raise ConfigError(address.refused(error.status or 0, error.reason)) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ConfigError(address.silent(error)) from None
    except ValidationError:
        raise ConfigError(address.stranger()) from None
    except StoreError as error:
        raise ConfigError.of(_FIELD, f"the registry {address.url} says: {error}", NAME_REMEDY) from None


def _number(version: ModelVersion) -> int:
    """Return the version's number; 0 for one that another tool has registered under a name of its own."""
    return int(version.name) if re.fullmatch(r"[1-9][0-9]{0,8}", version.name) else 0


def _version(name: str, version: ModelVersion, uri: str) -> Version:
    tags = {key: value for key, value in (version.custom_properties or {}).items() if isinstance(value, str)}
    return Version(name, _number(version), tags, uri)

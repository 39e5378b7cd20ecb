"""Call the Kubernetes API: credentials, which failures pass, and refusals in words that say what to do.

The client is the one that the Kubeflow SDK uses (TLS, exec plugins, token renewal). Answers stay plain dicts: its
models would drop what they do not know. Every path comes from `permissions`.

A server that starts answers 403 while its roles are not loaded, then 503 and 429, for seconds; a token is rotated or
expires while watches are open. So 401 and 403 pass by themselves where the same call was allowed before; where it was
not, the server is asked whether the right is there (SelfSubjectAccessReview), and a lack of it is reported at once.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
import yaml

from ocrmem.cluster.pauses import Pauses
from ocrmem.cluster.permissions import ACCESS_REVIEWS, OPENAPI, Resource, grant
from ocrmem.cluster.sdk import ApiException, ConfigException, client, kubeconfig
from ocrmem.config import KubernetesSection
from ocrmem.console import note
from ocrmem.errors import ClusterError, OcrMemError
from ocrmem.retry import TRANSIENT_STATUSES, Retry
from ocrmem.secrets import redact

Object = dict[str, Any]
_METHODS = {"create": "POST", "delete": "DELETE"}
_CALL_SECONDS = 30.0  # for one answer; a watch and a log have their own
_FIRST_CONTACT_SECONDS = 30.0
_REFUSAL_SECONDS = 120.0  # how long refusals of what was allowed before may last
# How the authorizer refuses; a 403 of another form comes from admission: a quota, a policy, a webhook.
_NO_RIGHT = re.compile(r"cannot \w+ (resource|path)?")
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


_CORRECT = "Correct what it names; with --dry-run the manifest is printed"
_LOOK = (
    "Check that it can be reached (`kubectl cluster-info`) and run the command again: a job that exists continues "
    "meanwhile, and is attached to"
)
_ADMISSION = {
    "exceeded quota": "Wait until others are done, ask for less, or have the ResourceQuota raised",
    "PodSecurity": "Use the runtime of k8s/base, whose pods are admitted under Pod Security's restricted level",
    "usage per": "Set kubernetes.cpu, memory and their limits within the namespace's LimitRange",
    "ValidatingAdmissionPolicy": "Change what the policy names, or ask its owner for an exception",
    "admission webhook": "Correct what the webhook names; with --dry-run the manifest is printed",
}


def admission_remedy(message: str) -> str:
    """Return what to do about an object that the cluster does not admit, by what it says."""
    return next((remedy for text, remedy in _ADMISSION.items() if text in message), _CORRECT)


class ApiError(Exception):
    """A call that did not succeed.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        transient: whether the same call may succeed later.
        retry_after: seconds that the server asked to wait, or None.
        lacks_right: the account may not make this call; another 403 is an admission rule that refuses the object.
        idle: nothing was wrong but that nothing came; the connection may be dead or there may be nothing to say.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None, idle: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.idle = idle
        self.transient = status in TRANSIENT_STATUSES or (status == 0 and "CERTIFICATE_VERIFY_FAILED" not in message)
        self.retry_after = retry_after
        self.lacks_right = status == 403 and bool(_NO_RIGHT.search(message))


class Api:
    """One namespace of one cluster.

    Args:
        section: context, namespace, and how long an API server may be silent.
        pauses: between retries.

    Raises:
        ClusterError: there is no usable kubeconfig and no service account.
    """

    def __init__(self, section: KubernetesSection, pauses: Pauses) -> None:
        self.namespace = section.namespace
        self.pauses = pauses
        self._context = section.context
        self._longest_outage = float(section.api_timeout_seconds)
        self._has_answered = False
        self._allowed: set[tuple[str, str]] = set()  # verb and resource that have been answered well
        self._warned: set[str] = set()
        self._log_in()

    def _log_in(self) -> None:
        """Read the credentials: the first time, and when they are no longer accepted (tokens are rotated)."""
        settings = _client_configuration(self._context)
        settings.retries = False  # retries are made here, where they are bounded and see Retry-After
        self.server = settings.host
        self._client = client.ApiClient(settings)

    def retry(self, what: str, stop: threading.Event | None = None) -> Retry:
        """Return the retries of a call; a server that never answered is rather a wrong address than an outage."""
        give_up = self._longest_outage if self._has_answered else min(self._longest_outage, _FIRST_CONTACT_SECONDS)
        pauses = self.pauses
        return Retry(what, give_up, first=pauses.first, longest=pauses.longest, clock=pauses.clock, stop=stop)

    def get(self, resource: Resource, name: str) -> Object | None:
        """Return the object, or None if there is none of that name."""
        return self._retrying(resource, "get", lambda: self.call(resource, "get", name), none_at=404, name=name)

    def list(self, resource: Resource, query: dict[str, Any] | None = None) -> list[Object]:
        """Return all objects that the query selects."""
        answer = self._retrying(resource, "list", lambda: self.call(resource, "list", query=query))
        return answer["items"] if answer else []

    def create(self, resource: Resource, body: Object) -> Object | None:
        """Create an object; None if there is one of that name already. A field the server does not know is refused."""
        query = {"fieldValidation": "Strict"}
        return self._retrying(resource, "create", lambda: self.call(resource, "create", "", query, body), none_at=409)

    def delete(self, resource: Resource, name: str) -> None:
        """Delete an object and what it owns; one that no longer exists is no error."""
        body = {"propagationPolicy": "Foreground"}
        self._retrying(resource, "delete", lambda: self.call(resource, "delete", name, body=body), 404, name)

    def may(self, resource: Resource, verb: str, name: str = "") -> bool:
        """Return whether this account may make a call, as the server says (SelfSubjectAccessReview)."""
        answer = self.create(ACCESS_REVIEWS, self._review(resource, verb, name))
        return bool(answer and answer["status"]["allowed"])

    def schemas(self) -> dict[str, Object]:
        """Return the OpenAPI schemas of Kubeflow Trainer's kinds as this server has them, by their names."""
        retry = self.retry("Kubernetes API, its schemas")
        while True:
            try:
                response = self._send(OPENAPI, "GET", None, None, _CALL_SECONDS)
                found: dict[str, Object] = json.loads(response.data)["components"]["schemas"]
                return found
            except (ValueError, KeyError):
                return {}
            except ApiError as error:
                if error.status == 404:
                    return {}
                if not error.transient or not retry.wait(str(error), error.retry_after):
                    place = f"Kubernetes API {self.server}"
                    raise ClusterError.of(place, f"does not show its schemas ({error})", _LOOK) from None

    def call(
        self,
        resource: Resource,
        verb: str,
        name: str = "",
        query: dict[str, Any] | None = None,
        body: Object | None = None,
    ) -> Object:
        """Make one call without retries.

        Raises:
            ApiError: it did not succeed.
        """
        response = self.open(resource, verb, name, query, body)
        try:
            return json.loads(response.data)
        except (ValueError, urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, f"the answer broke off ({type(error).__name__})") from None

    def watch(self, resource: Resource, query: dict[str, Any], version: str) -> Iterator[Object]:
        """Yield the changes after `version`, as they happen, until the server ends the watch.

        Raises:
            ApiError: the connection broke, or the server said so inside the stream (status 410: list again).
        """
        query = {
            **query,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": max(int(self.pauses.watch), 1),
        }
        for line in self.lines(self.open(resource, "watch", "", query, silence=self.pauses.silence)):
            try:
                change = json.loads(line)
            except ValueError:
                raise ApiError(0, "the watch broke off in the middle of a line") from None
            if change["type"] == "ERROR":
                status = change["object"]
                raise ApiError(int(status.get("code") or 0), str(status.get("message", "")))
            yield change

    def lines(self, response: Any) -> Iterator[bytes]:
        """Yield the lines of an open answer, each as soon as it is there; the last may lack its newline.

        Raises:
            ApiError: the connection broke.
        """
        rest = b""
        try:
            for chunk in response.stream(amt=None, decode_content=False):
                rest += chunk
                *whole, rest = rest.split(b"\n")
                yield from (line + b"\n" for line in whole)
        except urllib3.exceptions.ReadTimeoutError:
            raise ApiError(0, "nothing came for a while", idle=True) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiError(0, f"the connection broke ({type(error).__name__})") from None
        finally:
            response.close()
        if rest:
            yield rest

    def open(
        self,
        resource: Resource,
        verb: str,
        name: str = "",
        query: dict[str, Any] | None = None,
        body: Object | None = None,
        silence: float = _CALL_SECONDS,
    ) -> Any:
        """Send one call and return the open answer (an urllib3 response).

        Raises:
            ApiError: no answer, or one that is not 2xx.
        """
        if verb not in resource.verbs:
            raise ValueError(f"permissions.py does not name {verb} for {resource.name}")
        response = self._send(self._path(resource, name), _METHODS.get(verb, "GET"), query, body, silence)
        self._allowed.add((verb, resource.name))
        return response

    def _send(self, path: str, method: str, query: dict[str, Any] | None, body: Object | None, silence: float) -> Any:
        try:
            response = self._client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json, */*", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(_CALL_SECONDS, silence),
            )
        except ApiException as error:
            raise _answered(error) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, redact(f"{type(error).__name__}: {error}")) from None
        self._has_answered = True
        for text in _WARNING.findall(response.headers.get("Warning") or ""):
            if text not in self._warned:
                self._warned.add(text)
                note(redact(f"Kubernetes API warns: {text}"))
        return response

    def passes(self, error: ApiError, resource: Resource, verb: str, retry: Retry, name: str = "") -> bool:
        """Wait, if the failure of a call may pass by itself; return False when it will not, or has not for too long."""
        if error.transient:
            return retry.wait(str(error), error.retry_after)
        known = (verb, resource.name) in self._allowed
        if error.status == 401 and self._allowed:
            self._log_in()
        elif not (error.lacks_right and (known or not self._surely_refused(resource, verb, name))):
            return False
        return retry.wait(f"{error.status}: {error}", error.retry_after, within=_REFUSAL_SECONDS)

    def _surely_refused(self, resource: Resource, verb: str, name: str) -> bool:
        """Return whether the server says that the account lacks a right; one that is starting cannot say."""
        if resource is ACCESS_REVIEWS:
            return False  # every account may ask, once the roles are loaded
        try:
            answer = self.call(ACCESS_REVIEWS, "create", body=self._review(resource, verb, name))
        except ApiError:
            return False
        return not answer["status"]["allowed"]

    def _review(self, resource: Resource, verb: str, name: str) -> Object:
        attributes = {
            "group": resource.group,
            "version": resource.version,
            "resource": resource.plural,
            "subresource": resource.subresource,
            "verb": verb,
            "name": name,
            "namespace": self.namespace if resource.namespaced else "",
        }
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }

    def _path(self, resource: Resource, name: str) -> str:
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        inside = resource.namespaced and resource.plural != "namespaces"
        parts = [root, *(("namespaces", self.namespace) if inside else ()), resource.plural, name, resource.subresource]
        return "/".join(part for part in parts if part)

    def _retrying(
        self,
        resource: Resource,
        verb: str,
        call: Callable[[], Object],
        none_at: int | None = None,
        name: str = "",
    ) -> Object | None:
        retry = self.retry(f"Kubernetes API, {verb} {resource.name}")
        while True:
            try:
                return call()
            except ApiError as error:
                if error.status == none_at:
                    return None
                if not self.passes(error, resource, verb, retry, name):
                    raise self.explained(error, resource, verb, name) from None

    def lacking(self, resource: Resource, verb: str, name: str = "", said: str = "") -> OcrMemError:
        """Return a missing right as an error, with the file or the command that grants it."""
        scope = f"in namespace {self.namespace}" if resource.namespaced else "at the cluster scope"
        group = f' of API group "{resource.group}"' if resource.group else ""
        one = f" {name}" if name and verb == "get" else ""
        message = f"refuses {verb} on {resource.name}{one}{group} {scope} (403: {said or 'the right is not granted'})"
        return ClusterError.of(f"Kubernetes API {self.server}", message, grant(resource, verb, name, self.namespace))

    def explained(self, error: ApiError, resource: Resource, verb: str, name: str = "") -> OcrMemError:
        """Return a refused or unanswered call as an error for a person."""
        if error.lacks_right:
            return self.lacking(resource, verb, name, str(error))
        message, remedy = f"refuses {verb} {resource.name} ({error.status}: {error})", _CORRECT
        if error.status == 403:
            message = f"an admission rule of the cluster refuses {verb} {resource.name} (403: {error})"
            remedy = admission_remedy(str(error))
        elif error.status == 401:
            message = "does not accept the credentials (401)"
            remedy = "Log in to the cluster again, or choose another account with kubernetes.context"
        elif error.status == 0 and not error.transient:
            message = f"has a certificate that is not trusted ({error})"
            remedy = "Give its certificate authority in the kubeconfig"
        elif error.transient:
            reason = f"{error.status}: {error}" if error.status else str(error)
            message, remedy = f"gives no good answer to {verb} {resource.name} ({reason})", _LOOK
        elif error.status == 404:
            remedy = f"Install Kubeflow Trainer (its API group is {resource.group}), or correct kubernetes.namespace"
        elif "unknown field" in str(error):
            remedy = "Install Kubeflow Trainer 2.3 or later: an older one does not know the field, and would drop it"
        return ClusterError.of(f"Kubernetes API {self.server}", message, remedy)


def _answered(error: ApiException) -> ApiError:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason or ""
    try:
        retry_after = float((error.headers or {}).get("Retry-After", ""))
    except ValueError:
        retry_after = None
    return ApiError(error.status or 0, redact(str(message).strip()), retry_after)


def _client_configuration(context: str | None) -> Any:
    """Read the context that is named, or KUBECONFIG; else inside a pod its service account; else ~/.kube/config."""
    settings = client.Configuration()
    remedy = "Set KUBECONFIG or kubernetes.context; inside a pod, give it a service account"
    try:
        file = os.environ.get("KUBECONFIG") or None  # read now: the library reads it when it is imported
        if context is None and file is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kubeconfig.load_incluster_config(client_configuration=settings)
        else:
            kubeconfig.load_kube_config(file, context=context, client_configuration=settings)
    except yaml.YAMLError:  # its text shows lines of the file, which hold the token
        raise ClusterError.of("kubeconfig", "is not readable YAML", remedy) from None
    except (ConfigException, OSError, ValueError, TypeError) as error:
        message = f"gives no access to a cluster ({redact(str(error))})"
        raise ClusterError.of("kubeconfig", message, remedy) from None
    return settings

"""`ocrmem pipeline submit`: start a run of a compiled pipeline in a cluster, through Kubeflow Pipelines' own client."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from ocrmem.console import note
from ocrmem.errors import CheckFailed, ConfigError, OcrMemError
from ocrmem.health import NoAnswerError, ask
from ocrmem.retry import Retry
from ocrmem.secrets import looks_secret, redact, redact_uri
from ocrmem.workflow.compiled import Package

ENDPOINT = "KF_PIPELINES_ENDPOINT"  # as kfp's own command line has it
TOKEN = "KF_PIPELINES_TOKEN"
_SECONDS = 10  # for the first answer
_POLL = 5.0
_LONGEST_OUTAGE = 120.0  # s without an answer while a run is waited for
_ENDED = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}


class SubmitResult(TypedDict):
    """A run that was started; ``state`` is None unless it was waited for."""

    pipeline: str
    run_id: str
    run_name: str
    url: str
    state: str | None
    summary: list[str]


def submit(
    package: Package,
    arguments: dict[str, Any],
    *,
    endpoint: str | None,
    experiment: str,
    run_name: str | None = None,
    namespace: str | None = None,
    service_account: str | None = None,
    use_cache: bool = True,
    wait: bool = False,
    poll: float = _POLL,
) -> SubmitResult:
    """Start a run.

    The bearer token, if the endpoint wants one, comes from ``$KF_PIPELINES_TOKEN``; it is not printed.

    Args:
        arguments: values of the pipeline's parameters.
        endpoint: URL of the API; None: ``$KF_PIPELINES_ENDPOINT``.
        experiment: made if there is none of this name.
        use_cache: False runs every task.
        wait: return when the run has ended.
        poll: seconds between two looks.

    Raises:
        ConfigError: no endpoint, or one that does not answer or refuses.
        CheckFailed: the run was waited for and did not succeed.
    """
    host = _checked(endpoint)
    name = run_name or f"{package.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with _client(host) as client, tempfile.TemporaryDirectory() as scratch:
        file = package.path
        if not use_cache:  # the client's own enable_caching leaves tasks within an exit handler as they are
            file = Path(scratch) / package.path.name
            file.write_text(package.without("cachingOptions").text(), encoding="utf-8")
        run = client.create_run_from_pipeline_package(
            str(file),
            arguments=arguments,
            run_name=name,
            experiment_name=experiment,
            namespace=namespace,
            service_account=service_account,
        )
    url = f"{redact_uri(host)}/#/runs/details/{run.run_id}"
    state = _ended(host, run.run_id, url, poll) if wait else None
    summary = [f"{package.name}: run {run.run_id} is submitted", f"  {url}", *([f"  {state.lower()}"] if state else [])]
    return {
        "pipeline": package.name,
        "run_id": run.run_id,
        "run_name": name,
        "url": url,
        "state": state,
        "summary": summary,
    }


def _ended(host: str, run_id: str, url: str, poll: float) -> str:
    """Wait for the end of the run and return its state; an outage is waited out."""
    note(f"waiting for {url}")
    retry = Retry(f"Kubeflow Pipelines at {redact_uri(host)}", _LONGEST_OUTAGE, first=poll)
    while True:
        try:
            with _client(host) as client:
                found = client.get_run(run_id)
        except ConfigError as error:
            if not retry.wait(error.problems[0].message):
                raise
            continue
        retry.succeeded()
        if found.state in _ENDED:
            break
        time.sleep(poll)
    if found.state != "SUCCEEDED":
        said = found.error.message if found.error else None
        reason = redact(" ".join(said.split())) if said else "see its page"
        raise CheckFailed.of(f"run {run_id}", f"{found.state.lower()} ({reason})", f"Look at {url}")
    return str(found.state)


def _checked(endpoint: str | None) -> str:
    """Return the endpoint once it has answered: kfp's client would log five tracebacks over half a minute."""
    host = (endpoint or os.environ.get(ENDPOINT) or "").rstrip("/")
    if not host:
        raise ConfigError.of(
            "--endpoint", "is not given", f"Give the URL of Kubeflow Pipelines' API, or set {ENDPOINT}"
        )
    parts = urllib.parse.urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError.of(
            "--endpoint", f"{redact(host)!r} is not an http(s) URL", "Write for example http://localhost:8080"
        )
    if kind := looks_secret("endpoint", host):
        raise ConfigError.of("--endpoint", f"looks like {kind}", f"Leave it out and put a token into {TOKEN}")
    try:
        answer = ask(f"{host}/apis/v2beta1/healthz", os.environ.get(TOKEN), _SECONDS)
    except NoAnswerError as error:
        raise _refused(host, f"cannot be reached ({error})", None) from None
    if answer.refused:
        raise _refused(host, f"answers {answer.status} {answer.reason}", answer.status)
    if answer.json() is None:
        raise _refused(host, "does not answer as Kubeflow Pipelines does", None)
    return host


def _refused(host: str, message: str, code: int | None) -> OcrMemError:
    remedy = (
        f"Put a token into {TOKEN}, or ask for the right to start runs"
        if code in (401, 403)
        else "Check the URL; for a cluster: kubectl -n kubeflow port-forward svc/ml-pipeline 8888:8888"
    )
    return ConfigError.of("--endpoint", f"{host} {redact(message)}", remedy)


@contextlib.contextmanager
def _client(host: str) -> Iterator[Any]:
    """Open kfp's client, with its errors as ours and without what it prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from kfp import client
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield client.Client(host=host, existing_token=os.environ.get(TOKEN))
        except ApiException as error:
            raise _refused(host, f"answers {error.status} {_said(error)}", error.status) from None
        except (HTTPError, TimeoutError) as error:
            raise _refused(host, f"cannot be reached ({type(error).__name__})", None) from None
        finally:
            logging.disable(level)


def _said(error: Any) -> str:
    """Return the API's reason in one line."""
    try:
        text = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        text = error.reason or ""
    return " ".join(str(text).split())[:300]

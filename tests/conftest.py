"""Settings that hold for every test: no network, no telemetry, one thread a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.s3 import S3Service

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
)
# What a process prints waits in its buffer, as it does for users: no machine's own setting hides a missing flush.
os.environ.pop("PYTHONUNBUFFERED", None)
# A shell without job control starts what runs in the background with SIGINT ignored, and every process that a test
# starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name raw bytes by their parameter: gzip's hold the time, and pytest-xdist's processes must name a test alike."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: handed out last, they would keep one process busy while the other has nothing."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def s3_running() -> Iterator[S3Service]:
    from support.s3 import s3_service

    with s3_service() as service:
        yield service


@pytest.fixture
def s3(s3_running: S3Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Service]:
    """A real S3 API on loopback, with keys for it in the environment and none from elsewhere."""
    from support.s3 import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent/aws")
    s3_running.reset()
    yield s3_running
    s3_running.reset()

"""A real S3 API on loopback (moto), which counts requests and can be told to refuse or to hold them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import make_server
from werkzeug.wrappers import Response

ACCESS_KEY, SECRET_KEY = "AKIAOCRMEMTESTKEY000", "a-secret-key-that-must-not-be-seen"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Service:
    """The service's address, and the requests that it got.

    Attributes:
        url: for ``endpoint_url``.
        calls: method and path of every request.
        fault: called with method and path before a request is answered; an S3 error code instead of None
            (as ``(status, code)``) is the answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] not in ("GET", "HEAD")]

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )

    def make_bucket(self, name: str) -> None:
        self.client().create_bucket(Bucket=name)
        self.reset()

    def objects(self, bucket: str) -> dict[str, tuple[str, Any]]:
        """ETag and time of every key. Not counted among the calls."""
        count = len(self.calls)
        listed = self.client().list_objects_v2(Bucket=bucket).get("Contents", [])
        del self.calls[count:]
        return {item["Key"]: (item["ETag"], item["LastModified"]) for item in listed}

    def reset(self) -> None:
        self.calls.clear()
        self.fault = lambda method, path: None


@contextmanager
def s3_service() -> Iterator[S3Service]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        service.calls.append((method, path))
        if fault := service.fault(method, path):
            status, code = fault
            body = f"<Error><Code>{code}</Code><Message>refused on purpose</Message></Error>"
            return Response(body, status=status, content_type="application/xml")(environ, start_response)
        return s3(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    service = S3Service(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()

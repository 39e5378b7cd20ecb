"""The DVC remote, the registry and its store: contradictions and invalid addresses are reported on loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError

PARAMS = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8"))
KUBEFLOW = "kubeflow+http://registry:8080"


def load(**sections: dict[str, Any]) -> RunConfig:
    return RunConfig.from_dict(
        {**PARAMS, **{name: {**PARAMS.get(name, {}), **given} for name, given in sections.items()}}
    )


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"version": {"remote": "/mnt/dvc"}},
        {"version": {"remote": "../shared"}},
        {"version": {"remote": "s3://bucket"}},
        {"version": {"remote": "s3://bucket/a/b", "endpoint_url": "http://minio:9000"}},
        {"register": {"uri": "https://mlflow.example.org"}},
        {"register": {"uri": KUBEFLOW, "store": "/mnt/models"}},
        {
            "register": {
                "uri": "kubeflow+https://host/path",
                "store": "s3://bucket/m",
                "endpoint_url": "https://s3.local",
            }
        },
    ],
)
def test_sound_settings_load(sections: dict[str, Any]) -> None:
    load(**sections)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"version": {"remote": "gs://bucket"}}, "version.remote: is 'gs://bucket'. Give a directory or s3://"),
        ({"version": {"remote": "s3://"}}, "version.remote: is 's3://'"),
        ({"version": {"remote": "s3://Bad_Bucket/x"}}, "version.remote: is 's3://Bad_Bucket/x'"),
        ({"version": {"remote": " "}}, "version.remote: is ' '"),
        ({"version": {"remote": "dataset/dvc"}}, "version.remote: lies in paths.dataset, and verbs replace"),
        ({"version": {"endpoint_url": "http://minio:9000"}}, "is set, but remote is not on S3"),
        ({"version": {"remote": "s3://bucket", "endpoint_url": "minio:9000"}}, "version.endpoint_url: is 'minio:9000'"),
        ({"version": {"remote": "s3://AKIAABCDEFGHIJKLMNOP:x@bucket"}}, "version.remote: looks like a URL with a"),
        ({"register": {"uri": KUBEFLOW}}, "register.store: is not set, and the Kubeflow Model Registry keeps no files"),
        ({"register": {"store": "/mnt/models"}}, "register.store: is set, but MLflow"),
        ({"register": {"uri": "kubeflow://registry", "store": "/m"}}, "Write kubeflow+http://host:port"),
        ({"register": {"uri": "kubeflow+http://", "store": "/m"}}, "register.uri: is 'kubeflow+http://'"),
        ({"register": {"uri": KUBEFLOW, "store": "adapter"}}, "register.store: lies in paths.adapter"),
        (
            {"register": {"uri": KUBEFLOW, "store": "/m", "endpoint_url": "http://minio:9000"}},
            "register.endpoint_url: is set, but store is not on S3",
        ),
        (
            {"register": {"uri": "kubeflow+http://me:hunter2@host", "store": "/m"}},
            "register.uri: looks like a URL with",
        ),
    ],
)
def test_a_contradiction_is_reported_with_its_remedy(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**sections)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)

"""Rules over `kubernetes`: what the API server would refuse is reported when the settings are read."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ocrmem.config import KubernetesSection, RunConfig
from ocrmem.config.kubernetes_values import parse_quantity
from ocrmem.errors import ConfigError

FAULTS = [
    ("namespace=Team", "namespace"),
    ("runtime=''", "runtime"),
    ("image='a b'", "image"),
    ("queue=a/b", "queue"),
    ("gpu_resource='gpu card'", "gpu_resource"),
    ("volumes.dataset.claim=My_Claim", "volumes.dataset.claim"),
    ("volumes.models.path=relative", "volumes.models.path"),
    ("volumes.models.path=/workspace/dataset/models", "volumes.models.path"),
    ("volumes.output.claim=null", "volumes.output"),
    ("volumes.output.read_only=true", "volumes.output"),
    ("cpu=many", "cpu"),
    ("memory=-1", "memory"),
    ("memory=16GB", "memory"),
    ("memory_limit=16Gi", "memory_limit"),
    ("shm_size=32Gi", "shm_size"),
    ("secret_env=[HF_TOKEN]", "secret_env.0"),
    ("secret_env=['1A=secret/key']", "secret_env.0"),
    ("secret_env=[A=other/token, A=other/key]", "secret_env.1"),
    ("env={A-B: c}", "env.A-B"),
    ("env={HF_TOKEN: x}", "env.HF_TOKEN"),
    ("labels={a: 'b c'}", "labels.a"),
    ("node_selector={'a b': c}", "node_selector.a b"),
    ("tolerations=['gpu:Sometimes']", "tolerations.0"),
    ("tolerations=[{key: gpu}]", "tolerations.0"),
    ("image_pull_secrets=[A]", "image_pull_secrets.0"),
    ("nodes=0", "nodes"),
    ("on_interrupt=ask", "on_interrupt"),
]


@pytest.mark.parametrize(("override", "field"), FAULTS, ids=[case[0] for case in FAULTS])
def test_a_faulty_setting_is_named(override: str, field: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("data: {path: data}\nmodel: {}\n", encoding="utf-8")
    known = _problems(params)
    new = [problem for problem in _problems(params, f"kubernetes.{override}") if problem not in known]
    assert any(f"kubernetes.{field}: " in problem for problem in new), new


def _problems(params: Path, *overrides: str) -> list[str]:
    try:
        RunConfig.load(params, overrides)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("500m", Decimal("0.5")),
        ("0.5", Decimal("0.5")),
        (".5", Decimal("0.5")),
        ("5.", 5),
        ("+2", 2),
        ("1.5Gi", 3 * 2**29),
        ("2k", 2000),
        ("1Pi", 2**50),
        ("1Ei", 2**60),
        ("1E", 10**18),
        ("1e3", 1000),
        ("12E-1", Decimal("1.2")),
        ("100n", Decimal("1e-7")),
        ("", None),
        ("Gi", None),
        (".", None),
        ("-1", None),
        ("1e", None),
        ("1K", None),
        ("16GB", None),
        (" 4", None),
        ("\u0664", None),
        ("1e999999999", None),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, value: Decimal | None) -> None:
    assert parse_quantity(text) == value


def test_numbers_may_be_written_without_quotes(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("kubernetes: {cpu: 16, cpu_limit: 0.5e2}\n", encoding="utf-8")
    assert not [problem for problem in _problems(params) if "kubernetes.cpu:" in problem]


def test_an_empty_name_is_none(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("data: {path: data}\n", encoding="utf-8")
    known = _problems(params)
    assert _problems(params, "kubernetes.queue=''", "kubernetes.volumes.models.claim=''") == known
    assert KubernetesSection(queue="").queue is None

"""Starting a run in a cluster: `ocrmem pipeline submit` and kfp's own command line, as processes, against a server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.kfp_server import API, Server, kfp_server

from ocrmem.errors import CheckFailed, ConfigError
from ocrmem.workflow.compiled import open_package
from ocrmem.workflow.submitting import TOKEN, submit

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ROOT / "pipelines"
FIVE_CALLS = [
    f"GET {API}/healthz",
    f"GET {API}/experiments",
    f"POST {API}/experiments",
    f"POST {API}/runs",
    f"GET {API}/runs/r1",
]
SECRET = "token-that-must-not-be-seen"


def process(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"HOME": str(cwd)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def ocrmem(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return process(sys.executable, "-m", "ocrmem", "pipeline", "submit", *arguments, cwd=cwd, **environment)


def first_of_each(server: Server) -> list[str]:
    return list(dict.fromkeys(server.calls))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {max_steps: 7}\n", encoding="utf-8")
    return path


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_submit_makes_the_five_calls_and_hands_over_settings(config: Path, tmp_path: Path) -> None:
    with kfp_server("RUNNING", "SUCCEEDED", token=SECRET) as server:
        done = ocrmem(
            *("adapter_training", "--directory", str(PIPELINES), "--endpoint", server.url, "--config", str(config)),
            *("--set", "train.max_steps=9", "--param", "gpus=8", "--experiment", "mine", "--run-name", "first"),
            *("--service-account", "ocrmem", "--wait"),
            cwd=tmp_path,
            **{TOKEN: SECRET},
        )
    assert done.returncode == 0, done.stderr
    assert first_of_each(server) == FIVE_CALLS
    [run] = server.runs
    assert run["display_name"] == "first"
    assert run["service_account"] == "ocrmem"
    assert [experiment["display_name"] for experiment in server.experiments] == ["mine"]
    parameters = run["runtime_config"]["parameters"]
    assert parameters == {
        "params": "train: {max_steps: 7}\n",
        "overrides": ["train.max_steps=9"],
        "gpus": "8",
    }
    assert "r1" in done.stdout
    assert "succeeded" in done.stdout
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("word", ["create", "submit"])
def test_kfps_own_command_line_starts_the_same_run(word: str, tmp_path: Path) -> None:
    kfp = str(Path(sys.executable).parent / "kfp")
    with kfp_server("SUCCEEDED") as server:
        done = process(
            *(kfp, "--endpoint", server.url, "run", word, "-e", "mine", "-r", "by-hand", "-w"),
            *("-f", str(PIPELINES / "smoke_test.yaml"), "conversations=4", 'overrides=["smoke.samples=2"]', 'gpus="1"'),
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stderr
    assert first_of_each(server) == FIVE_CALLS
    [run] = server.runs
    assert run["runtime_config"]["parameters"] == {"conversations": 4, "overrides": ["smoke.samples=2"], "gpus": "1"}


def test_an_unreachable_endpoint_is_one_line(config: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    done = ocrmem("smoke_test", "--directory", str(PIPELINES), "--endpoint", url, "--config", str(config), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"{url} cannot be reached" in done.stderr
    assert "port-forward" in done.stderr


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (None, "is not given"),
        ("localhost:8080", "not an http"),
        ("http://name:secret@localhost:8080", "looks like a URL with a password"),
        ("http://name:pass/secret@localhost:8080", "looks like a URL with a password"),
        ("http://localhost:8080?sig=secret", "looks like a URL with a key"),
    ],
)
def test_an_endpoint_that_cannot_be_one_is_refused_unprinted(
    endpoint: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    with pytest.raises(ConfigError, match=message) as refused:
        submit(open_package("smoke_test", PIPELINES), {}, endpoint=endpoint, experiment="e")
    assert "secret" not in str(refused.value)


def test_settings_with_a_key_in_them_stay_here(config: Path, tmp_path: Path) -> None:
    config.write_text(f"tracking: {{entity: hf_{'a' * 20}}}\n", encoding="utf-8")
    with kfp_server() as server:
        done = ocrmem(
            *("smoke_test", "--directory", str(PIPELINES), "--config", str(config), "--endpoint", server.url),
            cwd=tmp_path,
        )
    assert done.returncode == 2
    assert "tracking.entity: looks like a Hugging Face token" in done.stderr
    assert "aaaa" not in done.stderr
    assert server.calls == []


def test_a_missing_token_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    with kfp_server(token=SECRET) as server, pytest.raises(ConfigError, match=r"answers 401.*KF_PIPELINES_TOKEN"):
        submit(open_package("smoke_test", PIPELINES), {}, endpoint=server.url, experiment="e")


def test_a_run_that_the_server_refuses_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    with kfp_server() as server, pytest.raises(ConfigError, match=r"answers 400 .*gpus requires type STRING"):
        submit(open_package("smoke_test", PIPELINES), {"gpus": 8}, endpoint=server.url, experiment="e")


def test_a_failed_run_is_a_no_and_an_absent_answer_is_waited_through() -> None:
    with (
        kfp_server("RUNNING", "FAILED", failures=(503, 500)) as server,
        pytest.raises(CheckFailed, match=r"run r1: failed .task train-adapter failed."),
    ):
        submit(open_package("smoke_test", PIPELINES), {}, endpoint=server.url, experiment="e", wait=True, poll=0.01)


def test_no_cache_reaches_every_task() -> None:
    with kfp_server() as server:
        submit(open_package("smoke_test", PIPELINES), {}, endpoint=server.url, experiment="e", use_cache=False)
    groups = server.runs[0]["pipeline_spec"]["pipeline_spec"]
    tasks = [
        task
        for group in (groups["root"], *groups["components"].values())
        for task in group.get("dag", {}).get("tasks", {}).values()
        if "executorLabel" in groups["components"][task["componentRef"]["name"]]
    ]
    assert tasks
    assert not [task for task in tasks if task.get("cachingOptions", {}).get("enableCache")]


def test_the_json_result_names_the_run(config: Path, tmp_path: Path) -> None:
    with kfp_server() as server:
        done = ocrmem(
            *("smoke_test", "--directory", str(PIPELINES), "--config", str(config), "--json"),
            cwd=tmp_path,
            KF_PIPELINES_ENDPOINT=server.url,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run_id"] == "r1"
    assert result["url"].endswith("/#/runs/details/r1")

"""The CI workflow calls things that exist, gives away no secret, and is pinned and bounded."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrmem.cli import build_parser
from ocrmem.workflow.compiled import open_package

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / ".github" / "workflows" / "ci.yaml"
# YAML 1.1 reads the key `on` as true.
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
STEPS = [(name, step) for name, job in WORKFLOW["jobs"].items() for step in job["steps"]]
COMMANDS = [(step.get("name", ""), step["run"]) for _, step in STEPS if "run" in step]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def words(command: str, **variables: str) -> list[str]:
    """The words that the shell makes of a command."""
    show = 'for word; do printf "%s\\n" "$word"; done'
    script = f"set -- {command.strip()}\n{show}"
    environment = {"PATH": os.environ["PATH"]} | variables
    done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_is_one_that_exists(name: str, command: str) -> None:
    variables = {"KF_PIPELINES_ENDPOINT": "https://kfp.example.org", "NAMESPACE": "", "IMAGE": ""}
    program, *arguments = words(command, **variables)
    if program == "make":
        target, *settings = arguments
        assert target in TARGETS
        assert settings == ["PYTHON=python", *(["ALL_CASES=1"] if target == "test" else [])]
    else:
        assert program == ".venv/bin/ocrmem"
        parsed = build_parser().parse_args(arguments)
        assert parsed.verb == "pipeline"
        package = open_package(parsed.name, ROOT / parsed.directory)
        values = package.run_values(ROOT / parsed.config, parsed.set, parsed.param)
        assert {one.partition("=")[0] for one in parsed.param} <= set(values)


def test_tests_come_before_the_smoke_test_and_its_report_is_kept() -> None:
    steps = WORKFLOW["jobs"]["test"]["steps"]
    runs = [shlex.split(step["run"])[:4] if "run" in step else step["uses"] for step in steps]
    test = runs.index(["make", "test", "PYTHON=python", "ALL_CASES=1"])
    smoke = runs.index([".venv/bin/ocrmem", "pipeline", "run", "smoke_test"])
    assert test < smoke < len(steps) - 1
    upload = steps[smoke + 1]
    assert upload["uses"].startswith("actions/upload-artifact@")
    assert "cancelled" in upload["if"], "a report of a failure is the one that is read"
    assert {"report.json", "report.html"} <= {Path(path).name for path in upload["with"]["path"].split()}
    assert upload["with"]["if-no-files-found"] == "error"


def test_a_run_on_the_cluster_is_asked_for_by_hand_and_waited_for() -> None:
    job = WORKFLOW["jobs"]["submit"]
    assert "workflow_dispatch" in job["if"]
    assert job["needs"] == "test"
    [step] = [step for step in job["steps"] if "submit" in step.get("run", "")]
    given = words(step["run"], KF_PIPELINES_ENDPOINT="https://kfp.example.org", NAMESPACE="team a", IMAGE="r/o:1")
    parsed = build_parser().parse_args(given[1:])
    assert (parsed.endpoint, parsed.namespace, parsed.wait) == ("https://kfp.example.org", "team a", True)
    assert parsed.param == ["image=r/o:1"]
    assert set(WORKFLOW[True]["workflow_dispatch"]["inputs"]) == {"endpoint", "namespace", "image"}


def test_an_input_cannot_become_a_command() -> None:
    for name, command in COMMANDS:
        assert "${{" not in command, name
    hostile = '"; touch /tmp/owned; $(touch /tmp/owned) `touch /tmp/owned`'
    [step] = [step for _, step in STEPS if "pipeline submit" in step.get("run", "")]
    given = words(step["run"], KF_PIPELINES_ENDPOINT=hostile, NAMESPACE=hostile, IMAGE="")
    assert given.count(hostile) == 2


def test_secrets_are_one_steps_environment_and_are_not_printed() -> None:
    holders = [step for _, step in STEPS if "secrets." in str(step)]
    assert len(holders) == 1
    [variable] = [name for name, value in holders[0]["env"].items() if "secrets." in value]
    assert variable not in holders[0]["run"], "it is read from the environment"
    for name, command in COMMANDS:
        assert not re.search(r"\b(echo|printenv|env|set -x)\b", command), name
    assert FILE.read_text(encoding="utf-8").count("secrets.") == 1


def test_it_may_read_and_no_more_and_every_job_ends() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["concurrency"]["group"]
    for name, job in WORKFLOW["jobs"].items():
        assert "permissions" not in job, name
        assert 0 < job["timeout-minutes"] <= 120
        assert re.fullmatch(r"ubuntu-\d\d\.04", job["runs-on"]), "a runner that changes under us is not the same test"
        for step in job["steps"]:
            if "uses" in step:
                action = re.escape(step["uses"])
                assert re.search(r"@[0-9a-f]{40}$", step["uses"]), step["uses"]
                assert re.search(rf"{action} # v\d+\.\d+\.\d+$", FILE.read_text(encoding="utf-8"), re.M), step["uses"]
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_pythons_are_those_that_the_project_names() -> None:
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for version in WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {version}" in classifiers

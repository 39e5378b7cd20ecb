"""How many processes start, and the one outcome that is reported for all of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ocrmem.cli import main
from ocrmem.config import RunConfig
from ocrmem.encoder.device import processes_per_node
from ocrmem.errors import ConfigError, OcrMemError, PreemptedError, TrainingError
from ocrmem.training.launch import Signals, check_placement, is_wanted, launch, nodes, outcome_of


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PET_NNODES", "PET_NPROC_PER_NODE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_numbers_come_from_options_and_from_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nodes() == 1
    assert processes_per_node("3") == 3
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("PET_NPROC_PER_NODE", "8")
    assert nodes() == 2
    assert processes_per_node("auto") == 8
    monkeypatch.setenv("PET_NPROC_PER_NODE", "auto")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert processes_per_node("auto") == 4
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert processes_per_node("auto") == 1


PLACEMENTS = [
    ("as Trainer sets them", {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "4"}, 8, True),
    ("cores taken for processes", {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2"}, 1, False),
    ("other nodes", {"PET_NNODES": "3", "PET_NPROC_PER_NODE": "4"}, 8, False),
    ("GPUs counted here", {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "auto"}, 2, False),
]


@pytest.mark.parametrize(
    ("variables", "processes", "agrees"), [case[1:] for case in PLACEMENTS], ids=[case[0] for case in PLACEMENTS]
)
def test_a_cluster_that_starts_other_processes_is_refused_and_no_batch_size_changes(
    variables: dict[str, str], processes: int, agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = RunConfig.model_validate({"train": {"processes": processes}})
    if agrees:
        return check_placement(config)
    given = variables["PET_NPROC_PER_NODE"]
    with pytest.raises(ConfigError, match=rf"PET_NPROC_PER_NODE is {given}.*train\.processes is {processes}"):
        check_placement(config)
    return None


def test_auto_in_a_pod_does_not_overrule_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PET_NNODES", "1")
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    params = Path(__file__).resolve().parents[2] / "params.yaml"
    assert main(["train", "--config", str(params), "--nproc", "auto"]) == 2
    assert "--nproc auto: means 1 nodes x 2 processes here" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["0", "-1", "two", "1.5"])
def test_wrong_number_of_processes(wanted: str) -> None:
    with pytest.raises(ConfigError, match="--nproc: is"):
        processes_per_node(wanted)


@pytest.mark.parametrize("text", ["1:4", "0", "x"])
def test_wrong_number_of_nodes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NNODES", text)
    with pytest.raises(ConfigError, match="PET_NNODES: is"):
        nodes()


def test_processes_are_shared_evenly_by_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NNODES", "2")
    with pytest.raises(ConfigError, match="is 3, which 2 nodes cannot share evenly"):
        launch(RunConfig.model_validate({"train": {"processes": 3}}))


def test_launcher_is_wanted_for_several_processes_and_for_deepspeed_but_not_inside_torchrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several, zero = ({"processes": 2}, {"deepspeed": "zero2"})
    assert not is_wanted(RunConfig())
    assert is_wanted(RunConfig.model_validate({"train": several}))
    assert is_wanted(RunConfig.model_validate({"train": zero}))
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not is_wanted(RunConfig.model_validate({"train": several}))


def test_nproc_that_breaks_the_global_batch_says_which_accumulation_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"train": {"per_device_batch_size": 4, "gradient_accumulation_steps": 4, "global_batch_size": 16}}
    (tmp_path / "params.yaml").write_text(json.dumps(settings), encoding="utf-8")
    assert main(["train", "--config", str(tmp_path / "params.yaml"), "--nproc", "2"]) == 2
    said = capsys.readouterr().err
    assert "processes 2 make 32" in said
    assert "Set train.gradient_accumulation_steps=2" in said


PROBLEM = {"place": "step 3", "message": "the loss is nan", "remedy": "Lower it"}
OTHER = {"place": "data", "message": "is gone", "remedy": "Fetch it"}


def failed(time: float, problem: dict[str, str], error: str = "TrainingError", code: int = 1) -> dict[str, Any]:
    return {"exit_code": code, "error": error, "problems": [problem], "time": time}


def crashed(time: float, text: str) -> dict[str, Any]:
    return {"exit_code": 1, "crash": text, "traceback": f"Traceback of {text}", "time": time}


@pytest.mark.parametrize(
    ("outcomes", "exit_codes", "first", "kind", "exit_code", "message"),
    [
        pytest.param(
            {0: failed(2, PROBLEM), 1: failed(1, PROBLEM)}, {0: 1, 1: 1}, None, TrainingError, 1, "step 3: the loss",
            id="the same error everywhere is reported once",
        ),
        pytest.param(
            {0: crashed(1, "Connection closed"), 1: failed(2, OTHER, "DataError")}, {0: 1, 1: 1}, None, OcrMemError, 1,
            "data: is gone", id="an error of its own before a lost connection",
        ),
        pytest.param(
            {0: crashed(1, "Connection closed")}, {0: 1, 1: -9}, None, TrainingError, 1,
            "process 1: was killed by SIGKILL", id="a killed process before a lost connection",
        ),
        pytest.param(
            {}, {1: -9, 0: -9}, None, TrainingError, 1, "process 1: was killed by SIGKILL", id="the first one killed",
        ),
        pytest.param(
            {}, {0: -15, 1: -11}, None, TrainingError, 1, "process 1: was killed by SIGSEGV", id="not the agent's",
        ),
        pytest.param(
            {0: crashed(2, "B"), 1: crashed(1, "A")}, {0: 1, 1: 1}, None, TrainingError, 1, "process 1: failed with A",
            id="the first crash",
        ),
        pytest.param(
            {}, {1: 7}, None, TrainingError, 1, "process 1: ended with exit code 7", id="an end without a word",
        ),
        pytest.param(
            {0: failed(1, PROBLEM, "PreemptedError", 75), 1: failed(1, PROBLEM, "PreemptedError", 75)}, {},
            signal.SIGTERM, PreemptedError, 75, "step 3", id="stopped with a checkpoint",
        ),
        pytest.param(
            {}, {0: -15, 1: -15}, signal.SIGTERM, PreemptedError, 75, "outside the training steps",
            id="stopped before the first step",
        ),
        pytest.param(
            {0: {"exit_code": 130, "time": 1}, 1: {"exit_code": 130, "time": 1}}, {}, signal.SIGINT, KeyboardInterrupt,
            130, None, id="Ctrl-C",
        ),
    ],
)  # fmt: skip
def test_one_error_is_reported(
    outcomes: dict[int, dict[str, Any]],
    exit_codes: dict[int, int],
    first: int | None,
    kind: type[BaseException],
    exit_code: int,
    message: str | None,
    tmp_path: Path,
) -> None:
    for rank, outcome in outcomes.items():
        (tmp_path / f"outcome-{rank}.json").write_text(json.dumps(outcome), encoding="utf-8")
    with pytest.raises(kind, match=message) as error:
        outcome_of(tmp_path, exit_codes, Signals(first))
    if isinstance(error.value, OcrMemError):
        assert error.value.exit_code == exit_code
        assert len(error.value.problems) == 1


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        outcome_of(tmp_path, {0: -9}, Signals(signal.SIGINT, repeated=True))
    with pytest.raises(SystemExit) as error:
        outcome_of(tmp_path, {0: -9}, Signals(signal.SIGTERM, repeated=True))
    assert error.value.code == 143


def test_result_is_the_first_ranks(tmp_path: Path) -> None:
    for rank, result in ((0, {"steps": 4, "summary": ["x"]}), (1, {})):
        outcome = {"exit_code": 0, "result": result, "time": 1}
        (tmp_path / f"outcome-{rank}.json").write_text(json.dumps(outcome), encoding="utf-8")
    assert outcome_of(tmp_path, {}, Signals()) == {"steps": 4, "summary": ["x"]}
    (tmp_path / "outcome-0.json").unlink()
    assert outcome_of(tmp_path, {}, Signals()) == {"summary": []}

"""Weights & Biases offline: what a run records, where, and what it never records."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, DataError
from ocrmem.tracking import TRACKERS, Run, track, without_secrets


def settings(root: Path, **tracking: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"tracking": {"project": "tests"} | tracking, "paths": {"tracking": str(root / "wandb")}}
    )


def records(run: Path) -> list[Any]:
    """What a finished run's .wandb file holds, once W&B's own process has written the last record, the exit."""
    deadline = time.monotonic() + 300
    while True:
        found = written(run)
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < deadline, "no exit record"
        time.sleep(0.05)


def written(run: Path) -> list[Any]:
    """The records on disk now.

    The file is a LevelDB log (github.com/google/leveldb/blob/main/doc/log_format.md) behind 7 bytes of W&B's.
    """
    from wandb.proto import wandb_internal_pb2

    content = next(run.glob("*.wandb")).read_bytes()
    found, parts, at = [], b"", 7
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if at + 7 + length > len(content):
            break  # not all of it is there yet
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def history(run: Path) -> list[dict[str, Any]]:
    rows = [record.history for record in records(run) if record.WhichOneof("record_type") == "history"]
    return [{(item.key or item.nested_key[0]): json.loads(item.value_json) for item in row.item} for row in rows]


def exit_codes(run: Path) -> list[int]:
    return [record.exit.exit_code for record in records(run) if record.WhichOneof("record_type") == "exit"]


def test_offline_run_lands_in_its_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = settings(tmp_path, run_name="first")
    with track(config, "train") as run:
        run.log({"train/loss": 2.0, "train/odd": float("nan")}, step=10)
        run.log({"train/loss": 1.0}, step=20)
        run.summarize({"steps": 20})
    assert run.place is not None
    assert run.place.parent == tmp_path / "wandb"
    rows = history(run.place)
    assert [(row["_step"], row["train/loss"]) for row in rows] == [(10, 2.0), (20, 1.0)]
    assert all("train/odd" not in row for row in rows)
    assert exit_codes(run.place) == [0]
    assert capfd.readouterr().out == ""


def test_verb_that_fails_leaves_a_failed_run(tmp_path: Path) -> None:
    place: list[Path | None] = []
    with pytest.raises(KeyError), track(settings(tmp_path), "train") as run:  # noqa: PT012
        place.append(run.place)
        raise KeyError("x")
    assert place[0] is not None
    assert exit_codes(place[0]) == [1]


def test_settings_are_recorded_without_secrets(tmp_path: Path) -> None:
    config = settings(tmp_path)
    register = config.registry.model_copy(update={"uri": "https://user:hunter2word@mlflow.example.org"})
    with track(config.model_copy(update={"registry": register}), "train") as run:
        pass
    assert run.place is not None
    content = b"".join(path.read_bytes() for path in run.place.rglob("*") if path.is_file())
    assert b"hunter2word" not in content
    assert b"learning_rate" in content


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"api_key": "abc"}, {"api_key": "(hidden)"}),
        ({"max_new_tokens": 5, "drop_blank_tokens": True}, {"max_new_tokens": 5, "drop_blank_tokens": True}),
        ({"a": ["hf_abcdefghijklmnopqrstuvwxyz"]}, {"a": ["(hidden)"]}),
        (
            {"base_revision": "a" * 40, "loss": 0.5, "none": None},
            {"base_revision": "a" * 40, "loss": 0.5, "none": None},
        ),
    ],
)
def test_what_looks_like_a_key_is_hidden(value: Any, expected: Any) -> None:
    assert without_secrets(value) == expected


def test_artifact_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "config.json").write_text("{}", encoding="utf-8")
    with track(settings(tmp_path), "register") as run:
        run.artifact("my adapter/1", "model", tmp_path / "adapter", {"recall": 0.9, "token": "abc"})
        run.artifact("report", "report", tmp_path / "adapter" / "config.json")
        with pytest.raises(DataError, match="cannot be logged"):
            run.artifact("none", "report", tmp_path / "nothing")
    assert run.place is not None
    artifacts = [record.artifact for record in records(run.place) if record.WhichOneof("record_type") == "artifact"]
    assert [(artifact.name, artifact.type) for artifact in artifacts] == [
        ("my-adapter-1", "model"),
        ("report", "report"),
    ]
    assert json.loads(artifacts[0].metadata) == {"recall": 0.9, "token": "(hidden)"}


def test_disabled_does_nothing(tmp_path: Path) -> None:
    with track(settings(tmp_path, wandb="disabled"), "train") as run:
        run.log({"loss": 1.0}, step=1)
        run.summarize({"steps": 1})
        run.artifact("a", "model", tmp_path / "nothing")
    assert run.place is None
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_in_the_table_is_opened_by_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[bool] = []

    class Mine(Run):
        def __init__(self, config: RunConfig, job: str) -> None:
            self.place = tmp_path / job

        def finish(self, *, failed: bool) -> None:
            finished.append(failed)

    monkeypatch.setitem(TRACKERS, "wandb", Mine)
    with track(settings(tmp_path), "train") as run:
        run.log({"loss": 1.0})
    assert (run.place, finished) == (tmp_path / "train", [False])


def test_missing_package_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ConfigError, match=r"not installed.*ocrmem\[tracking\].*wandb=disabled"),
        track(settings(tmp_path), "train"),
    ):
        pass


def test_online_without_a_key_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with (
        pytest.raises(ConfigError, match=r"no Weights & Biases key.*WANDB_API_KEY"),
        track(settings(tmp_path, wandb="online"), "train"),
    ):
        pass

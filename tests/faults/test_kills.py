"""kill -9 before every write, rename and sync of a verb: the next run gives the bytes of one that nobody disturbed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.finished import before
from support.verbs import Command, Done, Verbs

pytestmark = pytest.mark.slow
pytest.importorskip("mlflow")
pytest.importorskip("dvc")

KILLED = -9
# DVC copies an object under a random name, which a kill leaves in the remote; nothing takes it for an object.
DVC_LEFTOVER = re.compile(r"remote/files/md5/../\.[\w-]+\.tmp")


@dataclass(frozen=True)
class Case:
    """A verb to be killed.

    Attributes:
        watch: the function of `support.kills` that counts its moments.
        again: the command that is run after the kill.
        passing: by file, fields that tell of the run and not of its result; None: the file itself.
        least: moments; a guard against a hook that sees nothing.
        stride: of so many moments one is tried, unless ALL_CASES is set in the environment.
    """

    watch: str
    again: tuple[str, ...]
    passing: dict[str, tuple[str, ...] | None]
    least: int
    stride: int


CASES = {
    "render": Case("watch", ("render",), {}, 35, 3),
    "encode": Case("watch", ("encode",), {}, 12, 2),
    "train": Case(
        "watch",
        ("train", "--resume"),
        {"train.json": ("seconds", "seconds_without_data", "speed", "sha256"), "checkpoints": None},
        20,
        3,
    ),
    "evaluate": Case("steady_clock", ("evaluate",), {}, 6, 2),
    "register": Case("watch_sqlite", ("register",), {"registry/mlflow.db": None, "registry/artifacts": None}, 12, 4),
    "version": Case("watch", ("version",), {"version.json": ("pushed", "sha256")}, 30, 4),
}


def state(root: Path, case: Case) -> dict[str, str]:
    """Every file that is there, leftovers included, and what the registry's database says."""
    found: dict[str, str] = {}
    skipped = {"models", "data", *(name for name, fields in case.passing.items() if fields is None)}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        parents = {str(parent) for parent in Path(name).parents}
        if path.is_dir() or DVC_LEFTOVER.fullmatch(name) or skipped & {name, *parents}:
            continue
        content = path.read_bytes()
        if fields := case.passing.get(name):
            values = {key: value for key, value in json.loads(content).items() if key not in fields}
            content = json.dumps(values).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    if "registry/mlflow.db" in case.passing:
        found["registry"] = registered(root / "registry")
    return found


def registered(registry: Path) -> str:
    """Versions with tags and aliases, and the hashes of the files that are kept for them."""
    queries = (
        "SELECT name, version, current_stage, status FROM model_versions ORDER BY 1, 2",
        "SELECT name, version, key, value FROM model_version_tags ORDER BY 1, 2, 3",
        "SELECT name, alias, version FROM registered_model_aliases ORDER BY 1, 2",
    )
    with sqlite3.connect(registry / "mlflow.db") as database:
        rows = [database.execute(query).fetchall() for query in queries]
    files = (path for path in (registry / "artifacts").rglob("*") if path.is_file())
    return repr([*rows, sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)])


@pytest.mark.parametrize("verb", CASES)
def test_a_kill_at_any_write_does_not_show_after_the_next_run(
    verb: str, verbs: Verbs, finished: Path, tmp_path: Path
) -> None:
    case = CASES[verb]
    log = tmp_path / "moments"

    def run(root: Path, *arguments: str, kill_at: int | None) -> int:
        done = verbs(root, *arguments, "--quiet", before=(f"support.kills:{case.watch}", watched(log, kill_at)))
        assert "Traceback" not in done.stderr, done.stderr
        assert done.code in (0, KILLED), done
        return done.code

    undisturbed = before(verb, finished, tmp_path / "undisturbed")
    assert run(undisturbed, verb, kill_at=None) == 0
    expected = state(undisturbed, case)
    assert not [name for name in expected if "/." in f"/{name}"], "nothing is left over"
    moments = log.read_text(encoding="utf-8").splitlines()
    assert len(moments) >= case.least

    wrong = []
    for moment in range(1, len(moments) + 1, 1 if "ALL_CASES" in os.environ else case.stride):
        root = before(verb, finished, tmp_path / "killed")
        assert run(root, verb, kill_at=moment) == KILLED
        assert run(root, *case.again, kill_at=None) == 0
        if differing := sorted(dict(state(root, case).items() ^ expected.items())):
            wrong.append((moments[moment - 1], differing))
        shutil.rmtree(root)
    assert wrong == []


def watched(log: Path, kill_at: int | None) -> dict[str, Any]:
    return {"log": str(log), "kill_at": kill_at}


class Ranks:
    """A training on two ranks in one workspace, as torchrun would start them."""

    def __init__(self, verbs: Verbs, log: Path) -> None:
        self._verbs = verbs
        self.log = log

    def __call__(self, root: Path, *options: str, kill_at: int | None, rank: int) -> list[Done]:
        """Train to the end, or until ``rank`` is killed."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        arguments = (
            "train",
            *options,
            "--set",
            "train.processes=2",
            "--set",
            "train.per_device_batch_size=2",
            "--quiet",
        )
        commands = [
            Command(
                str(root),
                arguments,
                ("support.kills:watch", watched(self.log, kill_at)) if number == rank else None,
                {"RANK": str(number), "LOCAL_RANK": str(number)} | group,
            )
            for number in range(2)
        ]
        return self._verbs.together(*commands)


def test_a_kill_of_one_of_two_ranks_does_not_show_after_the_next_run(
    verbs: Verbs, finished: Path, tmp_path: Path
) -> None:
    case, train = CASES["train"], Ranks(verbs, tmp_path / "moments")
    undisturbed = before("train", finished, tmp_path / "undisturbed")
    done = train(undisturbed, kill_at=None, rank=0)
    assert [one.code for one in done] == [0, 0], done
    expected = state(undisturbed, case)
    moments = len(train.log.read_text(encoding="utf-8").splitlines())
    assert moments >= case.least
    # Some of the first rank's, which writes nearly all: in a checkpoint, between two, at the end.
    for moment in (moments // 4, moments // 2, moments - 8):
        root = before("train", finished, tmp_path / "killed")
        done = train(root, kill_at=moment, rank=0)
        assert done[0].code == KILLED, done
        done = train(root, "--resume", kill_at=None, rank=0)
        assert [one.code for one in done] == [0, 0], done
        assert state(root, case) == expected
        shutil.rmtree(root)

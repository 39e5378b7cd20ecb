"""Processes, and work that is cut short: the bytes of the dataset are the same in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.chat import MODEL, RENDER, conversation, tree, write_jsonl

from ocrmem.conversations import read_conversations
from ocrmem.dataset import render_workers
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.unfinished_shards import UnfinishedShards, write_part
from ocrmem.errors import DataError, ModelError
from ocrmem.files import sha256_file
from ocrmem.tokens import load_tokenizer


@pytest.mark.slow
def test_the_number_of_processes_does_not_show_in_the_bytes(make_config, small_data, tmp_path):
    trees = {}
    for count in (1, 2):
        config = make_config(data={"workers": count}, paths={"dataset": str(tmp_path / f"by{count}")})
        build_dataset(config)
        trees[count] = tree(tmp_path / f"by{count}")
    assert trees[1] == trees[2]
    assert not list(tmp_path.glob(".by*")), "nothing is left beside the dataset"


@pytest.mark.slow
def test_an_error_in_a_worker_process_arrives_whole(make_config, small_data, base_directory, tmp_path, make_tokenizer):
    dropping = make_tokenizer(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if messages|length < 4 %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    )
    dropping.save_pretrained(tmp_path / "dropping")
    model = {"base_model_name": str(tmp_path / "dropping")}
    with pytest.raises(ModelError, match="once and in order"):
        build_dataset(make_config(model=model, data={"workers": 2}))


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_with_a_remedy(make_config, small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(render_workers, "_writer", _die)
    with pytest.raises(DataError, match=r"Lower data\.workers"):
        build_dataset(make_config(data={"workers": 2}))


def _die(*_: object) -> None:
    os._exit(9)


@pytest.mark.parametrize(
    ("asked", "shards", "size", "expected"),
    [(1, 9, 10, 1), (3, 9, 10, 3), (8, 2, 10, 2), (0, 0, 10, 1), (0, 5, 10, 1), (0, 5, 40_000_000, None)],
)
def test_processes_are_no_more_than_shards_and_worth_their_start(asked, shards, size, expected):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert render_workers.worker_count(asked, shards, size) == (expected or min(cores, 5))


def test_a_damaged_part_is_not_complete(make_config, small_data, tmp_path):
    config = make_config()
    parts = UnfinishedShards(tmp_path / ".dataset.parts", "key")
    maker = SampleMaker(config, load_tokenizer(config))
    write_part(parts.directory, 0, read_conversations(config)[:3], maker)
    assert parts.complete(0)
    assert not parts.complete(1)
    pages = parts.directory / "00000-pages.parquet"
    content = pages.read_bytes()
    pages.write_bytes(content[:-1])
    assert not parts.complete(0)
    pages.write_bytes(content)
    assert UnfinishedShards(parts.directory, "key").complete(0)
    assert not UnfinishedShards(parts.directory, "another key").complete(0)


def test_parts_of_other_settings_are_not_resumed(make_config, small_data, tmp_path):
    config = make_config()
    build_dataset(config)
    clean = tree(Path(config.paths.dataset))
    other = make_config(render={"page_size": 640})
    parts = UnfinishedShards(tmp_path / ".dataset.parts", "key of the other settings")
    maker = SampleMaker(other, load_tokenizer(other))
    assert write_part(parts.directory, 0, read_conversations(other)[:3], maker) == []
    build_dataset(config)
    assert tree(Path(config.paths.dataset)) == clean
    assert not parts.directory.exists()


# What a person does: the command line, killed without warning.

PATIENCE = 900  # seconds; a limit for what hangs, far above what a busy machine needs


class Run:
    """A run of `ocrmem render` in another process."""

    def __init__(self, folder: Path, base: Path, dataset: str, workers: int) -> None:
        self.parts = folder / f".{dataset}.parts"
        self.dataset = folder / dataset
        settings = {
            "model": {**MODEL, "base_model_name": str(base)},
            "render": RENDER,
            "data": {"path": str(folder / "data"), "shard_conversations": 1, "workers": workers},
            "paths": {"dataset": str(self.dataset)},
        }
        path = folder / f"{dataset}-{workers}.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "ocrmem", "render", "--config", str(path), "--json"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> dict:
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, err
        return json.loads(out)

    def kill_after_shards(self, count: int) -> list[int]:
        """SIGKILL once so many shards are complete; returns the worker processes it had."""
        deadline = time.monotonic() + PATIENCE
        while len(list(self.parts.glob("[0-9]*.json"))) < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        return found


# Each conversation is a shard. So many take long enough that a test process which waits for its turn on a busy
# machine still finds the run at work.
SHARDS = 200


@pytest.fixture
def long_data(tmp_path):
    rows = [conversation(f"k{i}", 10) for i in range(SHARDS)]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows[:-4])
    write_jsonl(tmp_path / "data" / "eval.jsonl", rows[-4:])


@pytest.mark.slow
def test_kill_9_and_another_run_give_the_bytes_of_an_undisturbed_one(tmp_path, base_directory, long_data):
    Run(tmp_path, base_directory, "clean", 1).finish()
    killed = Run(tmp_path, base_directory, "killed", 2)
    children = killed.kill_after_shards(5)
    assert not killed.dataset.exists(), "a dataset is there whole or not at all"
    complete = sorted(killed.parts.glob("[0-9]*.json"))
    kept = {
        file["sha256"]: (killed.parts / file["path"]).stat().st_ino
        for record in complete
        for file in json.loads(record.read_text())["files"]
    }
    damaged = killed.parts / json.loads(complete[-1].read_text())["files"][0]["path"]
    damaged.write_bytes(damaged.read_bytes()[:100])
    for child in children:
        _wait_until_gone(child)
    again = Run(tmp_path, base_directory, "killed", 1)
    again.finish()
    assert tree(tmp_path / "clean") == tree(tmp_path / "killed")
    assert not killed.parts.exists()
    # A shard that was complete is the same file still; the damaged one was made again.
    inodes = {sha256_file(p): p.stat().st_ino for p in killed.dataset.rglob("*.parquet")}
    same = [digest for digest, inode in kept.items() if inodes[digest] == inode]
    assert len(complete) - 1 <= len(same) < len(kept)


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_no_half_dataset(tmp_path, base_directory, long_data):
    run = Run(tmp_path, base_directory, "stopped", 2)
    deadline = time.monotonic() + PATIENCE
    while not list(run.parts.glob("[0-9]*.json")):
        assert run.process.poll() is None, run.process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = [
        int(pid) for pid in Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    ]
    run.process.send_signal(signal.SIGINT)
    _, err = run.process.communicate(timeout=PATIENCE)
    assert run.process.returncode == 130
    assert "Traceback" not in err
    for child in children:
        _wait_until_gone(child)
    assert not run.dataset.exists()
    Run(tmp_path, base_directory, "stopped", 1).finish()
    MemoryDataset.open(run.dataset)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} outlived its parent")

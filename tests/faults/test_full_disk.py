"""A disk that fills up while a checkpoint is written: the one before stays, and the error can be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.ranks import environment
from support.training import standalone_trainer

from ocrmem.training.checkpoint import CheckpointStore

pytestmark = pytest.mark.slow

# Trains; after its third step there is no room left for the checkpoint of the fourth.
CHILD = """
import os, resource, sys
from pathlib import Path
from transformers import TrainerCallback
from support.training import standalone_trainer
from ocrmem.errors import TrainingError

folder, how = Path(sys.argv[1]), sys.argv[2]
trainer = standalone_trainer(folder)

class NoRoom(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3 and how == "full":
            with (folder / "filler").open("wb", buffering=0) as filler:
                try:
                    while filler.write(bytes(512)):
                        pass
                except OSError:
                    pass
        elif state.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

trainer.add_callback(NoRoom())
try:
    trainer.train()
except TrainingError as error:
    print(error)
"""


def test_file_system_without_room(tmp_path: Path) -> None:
    """A real full disk: a small tmpfs in a mount namespace of its own, and what is left on it copied out."""
    folder, copy = tmp_path / "disk", tmp_path / "copy"
    folder.mkdir()
    inside = f'mount -t tmpfs -o size=160k none {folder} && "$@" ; cp -r {folder} {copy}'
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "mount -t tmpfs none /mnt"]).returncode:
        pytest.skip("this machine allows no mount namespace")
    check([*namespace, inside, "sh"], folder, "full", copy, "No space left on device")


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """The same by a limit on the size of files, which any user may set."""
    check([], tmp_path / "disk", "limited", tmp_path / "disk", "File too large")


def check(around: list[str], folder: Path, how: str, left: Path, reason: str) -> None:
    done = subprocess.run(
        [*around, sys.executable, "-c", CHILD, str(folder), how],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "the checkpoint of step 4 could not be written (" in done.stdout, done.stdout + done.stderr
    assert reason in done.stdout
    assert "the checkpoint before it is kept" in done.stdout
    newest = CheckpointStore(left).newest_complete()
    assert newest is not None
    assert newest.step == 2
    assert not list(left.glob(".checkpoint-*"))
    (left / "filler").unlink(missing_ok=True)
    resumed = standalone_trainer(left)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6

"""One process of a training that `ocrmem.training.launch` started: ``python -m ocrmem.training.rank_process FOLDER``.

The folder holds the run (run.json) and takes the outcome, ``outcome-RANK.json``. This process prints no result and no
error, so that the launcher can report each once.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ocrmem.errors import Exit, OcrMemError
from ocrmem.files import disk_errors, write_json

RUN = "run.json"
STOP = "stop"
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(folder: Path) -> int:
    """Train as run.json says and write the outcome; returns the exit code."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if sys.platform == "linux":  # get SIGTERM when the launcher dies, also by kill -9: a checkpoint is written then
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    # First the id by which the launcher reaches this process, then a look at the signal that came before.
    (folder / f"pid-{local_rank}").write_text(str(os.getpid()), encoding="utf-8")
    outcome: dict[str, Any]
    try:
        if (folder / STOP).exists():
            os.kill(os.getpid(), int((folder / STOP).read_text(encoding="utf-8")))
        with disk_errors("ocrmem train"):
            outcome = {"exit_code": Exit.DONE, "result": _train(folder, is_main=rank == 0)}
    except KeyboardInterrupt:
        outcome = {"exit_code": Exit.INTERRUPTED}
    except OcrMemError as error:
        problems = [problem.as_dict() for problem in error.problems]
        outcome = {"exit_code": error.exit_code, "error": type(error).__name__, "problems": problems}
    except Exception as error:  # noqa: BLE001  # the launcher reports it
        outcome = {"exit_code": Exit.FAILED, "crash": repr(error), "traceback": traceback.format_exc()}
    write_json(folder / f"outcome-{rank}.json", outcome | {"time": time.time()})
    sys.stdout.flush()
    # A process that was stopped in order must not make torchrun put an end to the others.
    stopped = (Exit.DONE, Exit.PREEMPTED, Exit.INTERRUPTED)
    return Exit.DONE if outcome["exit_code"] in stopped else Exit.FAILED


def _train(folder: Path, *, is_main: bool) -> dict[str, Any]:
    from ocrmem.config import RunConfig
    from ocrmem.console import quiet_libraries, set_quiet

    quiet_libraries()
    run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    set_quiet(run["quiet"] or not is_main)  # one process reports for all
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is the launcher's, for the result alone
    from ocrmem.training.train import train

    return {**train(RunConfig.from_dict(run["config"]), resume=run["resume"], output=run["output"])}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

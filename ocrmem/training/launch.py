"""Train on several processes of this machine: start them with torchrun, pass on signals, report one outcome.

torchrun's agent runs in this process. It gives the processes their ranks, and when one of them dies it ends the
others: SIGTERM at once, SIGKILL after 30 s to those that hang in a collective. On several nodes (PET_NNODES and the
other PET_* variables, as Kubeflow Trainer sets them) a launcher runs on each.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ocrmem import console, errors
from ocrmem.config import RunConfig
from ocrmem.config.deepspeed import deepspeed_config
from ocrmem.encoder.device import processes_per_node
from ocrmem.errors import ConfigError, Exit, OcrMemError, PreemptedError, Problem, TrainingError
from ocrmem.files import write_json
from ocrmem.signals import on_signals
from ocrmem.training.deepspeed import require_deepspeed
from ocrmem.training.rank_process import RUN, STOP

if TYPE_CHECKING:
    from ocrmem.training.train import TrainResult


def nodes() -> int:
    """Return the number of machines that take part: PET_NNODES, 1 where it is not set.

    Raises:
        ConfigError: it is not a fixed number; an elastic range would change the batch size.
    """
    text = os.environ.get("PET_NNODES", "1")
    if not text.isdigit() or int(text) < 1:
        raise ConfigError.of("PET_NNODES", f"is {text!r}", "Give a fixed number of nodes")
    return int(text)


def check_placement(config: RunConfig) -> None:
    """Refuse processes that a cluster starts and the settings do not count: another number is another batch size.

    Raises:
        ConfigError: PET_NNODES x PET_NPROC_PER_NODE (or the GPUs of this node) is not ``train.processes``.
    """
    here, count = processes_per_node("auto"), nodes()
    if here * count != config.train.processes:
        given = os.environ.get("PET_NPROC_PER_NODE", "not set")
        raise ConfigError.of(
            "--nproc auto",
            f"means {count} nodes x {here} processes here (PET_NPROC_PER_NODE is {given}), but train.processes is "
            f"{config.train.processes}, which the batch size was chosen for",
            "Set numProcPerNode in the TrainJob, or train.processes, so that they agree",
        )


def is_placed() -> bool:
    """Return whether a cluster says how many processes start, as Kubeflow Trainer does."""
    return not os.environ.keys().isdisjoint(("PET_NNODES", "PET_NPROC_PER_NODE"))


def is_wanted(config: RunConfig) -> bool:
    """Return whether the run needs a launcher: several processes or DeepSpeed, not yet started by torchrun."""
    return "LOCAL_RANK" not in os.environ and (config.train.processes > 1 or config.train.deepspeed is not None)


def train_or_launch(config: RunConfig, *, resume: bool = False, output: str | None = None) -> TrainResult:
    """Train in this process (see `ocrmem.training.train.train`), or where the run needs it by `launch`."""
    if is_wanted(config):
        return launch(config, resume=resume, output=output)
    from ocrmem.training.train import train

    return train(config, resume=resume, output=output)


def launch(config: RunConfig, *, resume: bool = False, output: str | None = None) -> TrainResult:
    """Train on ``train.processes`` processes.

    Args:
        config: the run; ``train.processes`` counts those of all nodes.
        resume: as in `ocrmem.training.train.train`, and so is ``output``.

    Returns:
        What `train` returns in the first process; on a node without that process, an empty ``summary``.

    Raises:
        ConfigError: the nodes cannot share the processes evenly, or DeepSpeed is not available.
        PreemptedError: stopped by SIGTERM, with a checkpoint if a step was done.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
        OcrMemError: what the process that failed first raised, or that it was killed.
    """
    require_deepspeed(config)
    deepspeed_config(config, on_cpu=True)  # a faulty file is reported here, once
    count = nodes()
    per_node, rest = divmod(config.train.processes, count)
    if rest or not per_node:
        raise ConfigError.of(
            "train.processes",
            f"is {config.train.processes}, which {count} nodes cannot share evenly",
            f"Use --nproc, or a multiple of {count}",
        )
    with tempfile.TemporaryDirectory(prefix="ocrmem-train-") as name:
        folder = Path(name)
        run = {"config": config.as_dict(), "resume": resume, "output": output, "quiet": console.console.quiet}
        write_json(folder / RUN, run)
        # torchrun would let each process use one core alone, with a warning.
        os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // per_node, 1)))
        with _passing_on_signals(folder) as signals:
            exit_codes = _torchrun(folder, count, per_node)
        return outcome_of(folder, exit_codes, signals)


@dataclass
class Signals:
    """The first signal that this process got while the others ran, and whether another followed."""

    first: int | None = None
    repeated: bool = False


@contextmanager
def _passing_on_signals(folder: Path) -> Iterator[Signals]:
    """Hand SIGINT and SIGTERM to the workers, which save and stop; a second one kills them.

    Workers that have not written their process id yet find the file `STOP`.
    """
    signals = Signals()

    def hand_on(number: int) -> None:
        for path in folder.glob("pid-*"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text(encoding="utf-8")), number)

    def ask(number: int) -> None:
        signals.first = number
        (folder / STOP).write_text(str(number), encoding="utf-8")
        hand_on(number)

    def insist(number: int) -> None:
        signals.repeated = True
        hand_on(signal.SIGKILL)

    with on_signals(ask, insist):
        yield signals


def _torchrun(folder: Path, count: int, per_node: int) -> dict[int, int]:
    """Run the workers; return the exit codes of those that failed, by rank, in the order `outcome_of` takes."""
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    started = run.parse_args(
        [
            *(["--standalone"] if count == 1 else []),
            f"--nproc-per-node={per_node}",
            # SIGINT and SIGTERM are for the workers first, see _passing_on_signals.
            "--signals-to-handle=SIGHUP,SIGQUIT",
            "--module",
            "ocrmem.training.rank_process",
            str(folder),
        ]
    )
    logging.disable(logging.CRITICAL)  # the agent's log of a failure is longer than the outcome and says less
    try:
        run.run(started)
    except ChildFailedError as error:
        failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
        return {rank: failure.exitcode for rank, failure in failures}
    except (RendezvousError, DistError) as error:
        raise TrainingError.of(
            "train",
            f"the {count} nodes did not find each other ({type(error).__name__}: {error})",
            "Check that all of them run, and that each can reach PET_MASTER_ADDR and PET_MASTER_PORT",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return {}


def outcome_of(folder: Path, exit_codes: dict[int, int], signals: Signals) -> TrainResult:
    """Make one result or one error of what all workers of this node reported, or did not.

    Args:
        folder: holds their outcome-RANK.json.
        exit_codes: of those that failed, by rank, the first to fail first; negative for a signal.
        signals: what the launcher got meanwhile.
    """
    found: dict[int, dict[str, Any]] = {
        int(path.stem.rpartition("-")[2]): json.loads(path.read_text(encoding="utf-8"))
        for path in folder.glob("outcome-*.json")
    }
    if signals.repeated:
        raise KeyboardInterrupt if signals.first == signal.SIGINT else SystemExit(128 + signal.SIGTERM)
    if reported := [outcome for outcome in found.values() if "problems" in outcome]:
        first = min(reported, key=lambda outcome: outcome["time"])
        kind: type[OcrMemError] = getattr(errors, first["error"], TrainingError)
        raise kind([Problem(**problem) for problem in first["problems"]])
    if any(outcome["exit_code"] == Exit.INTERRUPTED for outcome in found.values()):
        raise KeyboardInterrupt
    if not exit_codes:
        return cast("TrainResult", found.get(0, {}).get("result") or {"summary": []})
    if signals.first == signal.SIGINT:
        raise KeyboardInterrupt
    if signals.first == signal.SIGTERM:
        raise PreemptedError.of(
            "train",
            "was stopped by SIGTERM outside the training steps; the checkpoints that were there are kept",
            "Resume with `ocrmem train --resume`",
        )
    raise _death(found, exit_codes)


def _death(found: dict[int, dict[str, Any]], exit_codes: dict[int, int]) -> OcrMemError:
    """Return the error for processes that ended without one of ocrmem's own.

    One that was killed is the cause; those that crashed beside it lost their connection to it.
    """
    killed = {rank: -code for rank, code in exit_codes.items() if code < 0 and rank not in found}
    if killed:
        # The agent's own signals come after the first death: SIGTERM in the same second, SIGKILL much later.
        rank = min(killed, key=lambda rank: killed[rank] == signal.SIGTERM)
        return TrainingError.of(
            f"process {rank}",
            f"was killed by {signal.Signals(killed[rank]).name}",
            "Check whether it ran out of memory, then resume with `ocrmem train --resume`",
        )
    crashed = [(outcome["time"], rank) for rank, outcome in found.items() if "crash" in outcome]
    if not crashed:
        rank = min(exit_codes)
        return TrainingError.of(f"process {rank}", f"ended with exit code {exit_codes[rank]}", "See its output above")
    rank = min(crashed)[1]
    print(found[rank]["traceback"], file=sys.stderr)
    message = f"failed with {found[rank]['crash']}"
    return TrainingError.of(f"process {rank}", message, "See the traceback above; checkpoints are kept")

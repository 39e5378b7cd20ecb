"""What a task of a pipeline costs over the bare verb: the same work both ways, in turn, on this machine.

    python scripts/pipeline_overhead.py [--rounds 3]

Each round runs the pipeline `smoke_test` locally and then `ocrmem VERB`, each from nothing, with the tiny preset made
quick. A task's time is from kfp's "Executing task" to its "finished" in the run's log; a verb's is that of its process.
Both start one Python and import the same libraries, so what is left is the shell, kfp's executor and the artifacts.
The last line compares processor seconds of whole rounds, which other work on the machine does not touch; there the
start of kfp and the summary task count too.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from ocrmem.steps import STEPS

ROOT = Path(__file__).resolve().parent.parent
TASKS = {
    name: str(STEPS[name].component).replace("_", "-") for name in ("validate", "base", "render", "encode", "smoke")
}
QUICK = ("base.encoder_steps=4", "base.lm_steps=4", "base.text_recall=0.0")
CONVERSATIONS = 16
_LINE = re.compile(r"(\d\d:\d\d:\d\d\.\d{3}) - INFO - (Executing task|Task) \S*'([\w-]+)'\S*( finished)?")


def ocrmem(*arguments: str, cwd: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command took, its children's with it."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ocrmem", *arguments], cwd=cwd, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, used


def task_seconds(log: str) -> dict[str, float]:
    """Seconds of every task, by kfp's own log."""
    begun: dict[str, datetime] = {}
    seconds = {}
    for clock, what, task, finished in _LINE.findall(log):
        at = datetime.strptime(clock, "%H:%M:%S.%f")
        if what == "Executing task":
            begun[task] = at
        elif finished:
            seconds[task] = (at - begun[task]).total_seconds() % 86400
    return seconds


def one_round(place: Path) -> dict[str, tuple[float, float]]:
    """Seconds of the bare verb and of the task, by verb; under "processor" those of all verbs and of the pipeline."""
    place.mkdir()
    (place / "data").mkdir()
    for file in (ROOT / "samples" / "conversations").glob("*.jsonl"):
        lines = file.read_text(encoding="utf-8").splitlines()[:CONVERSATIONS]
        (place / "data" / file.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    given = [word for setting in QUICK for word in ("--set", setting)]
    _, pipeline = ocrmem(
        "pipeline", "run", "smoke_test", "--local", "--directory", str(ROOT / "pipelines"), *given, cwd=place
    )
    [log] = place.glob("runs/*/log.txt")
    tasks = task_seconds(log.read_text(encoding="utf-8"))
    pairs = {}
    verbs = 0.0
    for verb, task in TASKS.items():
        seconds, used = ocrmem(verb, *given, cwd=place)
        pairs[verb] = (seconds, tasks[task])
        verbs += used
    return pairs | {"processor": (verbs, pipeline)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="also write the seconds of every round")
    arguments = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as directory:
        for number in range(arguments.rounds):
            rounds.append(one_round(Path(directory) / str(number)))
    print(f"{'verb':<10} {'bare s':>8} {'task s':>8} {'overhead s':>11}   (medians of {len(rounds)} rounds)")
    for verb in TASKS:
        bare, task = (statistics.median(pairs[verb][way] for pairs in rounds) for way in (0, 1))
        over = statistics.median(pairs[verb][1] - pairs[verb][0] for pairs in rounds)
        print(f"{verb:<10} {bare:8.2f} {task:8.2f} {over:11.2f}")
    verbs, pipeline = (statistics.median(pairs["processor"][way] for pairs in rounds) for way in (0, 1))
    each = statistics.median((pairs["processor"][1] - pairs["processor"][0]) / len(TASKS) for pairs in rounds)
    print(f"processor seconds: {verbs:.1f} by verbs, {pipeline:.1f} by the pipeline, {each:.2f} more a task")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rounds, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

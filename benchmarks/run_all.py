"""All benchmarks one after the other, and what they showed at the end: `make bench`.

    python benchmarks/run_all.py [--only NAME ...] [--json FILE]

Every script runs in a process of its own with what it prints shown as it comes. At the end stands a line each: how
long it took, and whether its target was met (exit code 0), was missed (1) or could not be measured here (2: a tool, a
font or a second core is missing; the script says which). Leave the machine alone meanwhile: processor seconds do not
count what others do, but caches and memory are shared. Ends with 1 if a target was missed or a script broke.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common.clock import load

HERE = Path(__file__).resolve().parent
VERDICTS = {0: "shown", 1: "target missed", 2: "not to be measured here"}


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem for path in HERE.glob("*.py") if path != Path(__file__).resolve())


def run(name: str) -> dict[str, Any]:
    """Run one, showing its output; returns seconds, exit code and the result it printed as JSON, if it did."""
    print(f"\n== python benchmarks/{name}.py", flush=True)
    started, result = time.monotonic(), None
    with subprocess.Popen([sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(("{", "[")):
                try:
                    result = json.loads(line)
                    continue  # for --json: the tables say it to a person
                except ValueError:
                    pass
            print(line, end="", flush=True)
    return {"seconds": round(time.monotonic() - started, 1), "exit_code": process.returncode, "result": result}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names(), metavar="NAME", help=f"of {', '.join(names())}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = parser.parse_args()
    before = load()
    found = {name: run(name) for name in arguments.only or names()}
    print(f"\n{'benchmark':20}{'seconds':>9}  (before: {before})")
    for name, told in found.items():
        verdict = VERDICTS.get(told["exit_code"], f"broke (exit code {told['exit_code']})")
        print(f"{name:20}{told['seconds']:9.0f}  {verdict}")
    print(f"{'together':20}{sum(told['seconds'] for told in found.values()):9.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": before, "benchmarks": found}, indent=2), encoding="utf-8")
    return int(any(told["exit_code"] not in (0, 2) for told in found.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Write what other files take from the steps.

python -m ocrmem.steps outputs       print what they leave in the working directory; `make clean` removes it
python -m ocrmem.steps reference     write the table of docs/index.md, and the outputs into .gitignore
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ocrmem.steps import STEPS, Step

INDEX, IGNORED = Path("docs/index.md"), Path(".gitignore")


def outputs(steps: Mapping[str, Step] = STEPS) -> list[str]:
    """Return every place that a step writes, by its default name."""
    return [place for step in steps.values() for place in (*step.writes, *step.keeps)]


def index_page(page: str, steps: Mapping[str, Step] = STEPS) -> str:
    """Return docs/index.md with the table of steps."""
    rows = ["| step | what it does | reads | writes |", "| --- | --- | --- | --- |"]
    for step in steps.values():
        places = (", ".join(names) or "-" for names in (step.reads, step.writes))
        cells = (f"[{step.name}]({step.page})", step.help, *places)
        rows.append(f"| {' | '.join(cells)} |")
    return _between("<!-- steps: written by `make reference` -->", rows, "<!-- end of steps -->", page)


def gitignore(text: str, steps: Mapping[str, Step] = STEPS) -> str:
    """Return .gitignore with what the steps write."""
    names = [f"/{place}" for place in outputs(steps)]
    return _between(
        "# What the steps write (`make reference`); DVC keeps the large ones.", names, "# End of steps.", text
    )


def _between(begin: str, lines: list[str], end: str, text: str) -> str:
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return "\n".join([before + begin, *lines, end + after])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["outputs"]:
            print("\n".join(outputs()))
        case ["reference"]:
            for path, written in ((INDEX, index_page), (IGNORED, gitignore)):
                path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            sys.exit(__doc__)

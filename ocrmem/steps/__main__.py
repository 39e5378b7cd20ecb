"""What other files take from the steps.

python -m ocrmem.steps outputs     what they leave in the working directory; `make clean` removes it
python -m ocrmem.steps table       the table of docs/index.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ocrmem.steps import STEPS, Step

PAGE = Path("docs/index.md")
_BEGIN, _END = "<!-- steps: written by `make manifests` -->\n", "<!-- end of steps -->\n"


def outputs() -> list[str]:
    """Return every place that a step writes, by its default name."""
    return [place for step in STEPS.values() for place in (*step.writes, *step.keeps)]


def with_table(page: str, steps: Mapping[str, Step] = STEPS) -> str:
    """Return a Markdown page with the table of steps between its marks."""
    rows = ["| step | what it does | function | reads | writes |", "| --- | --- | --- | --- | --- |"]
    for step in steps.values():
        function = step.function.removeprefix("ocrmem.").replace(":", ".")
        places = (", ".join(names) or "-" for names in (step.reads, step.writes))
        cells = (f"[{step.name}]({step.page})", step.help, f"`{function}`" if function else "-", *places)
        rows.append(f"| {' | '.join(cells)} |")
    before, after = page.partition(_BEGIN)[0], page.partition(_END)[2]
    return before + _BEGIN + "\n".join(rows) + "\n" + _END + after


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["outputs"]:
            print("\n".join(outputs()))
        case ["table"]:
            PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            sys.exit(__doc__)

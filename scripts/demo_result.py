"""The last lines of ``make demo``: what memory did, and where everything is."""

from __future__ import annotations

import json
from pathlib import Path

from ocrmem.evaluation.result import VARIANTS


def main() -> None:
    evaluation = json.loads(Path("evaluation.json").read_text(encoding="utf-8"))
    registration = json.loads(Path("registration.json").read_text(encoding="utf-8"))
    print(f"\n{evaluation['verdict']['sentence']}.")
    print(f"Recall on {evaluation['samples']['evaluated']} held-out questions (exact answers)")
    for key, variant in VARIANTS.items():
        if key in evaluation:
            print(f"  {evaluation[key]['recall']:6.3f}  {variant.name}")
    print(f"\nReport      {Path('evaluation.html').resolve()}")
    print(f"Adapter     {Path('adapter').resolve()}")
    print(f"Registered  {registration['name']} version {registration['version']}", end="")
    print(f", alias {registration['alias']}" if registration["alias"] else " (the alias did not move)")


if __name__ == "__main__":
    main()

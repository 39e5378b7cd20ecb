"""The last lines of ``make demo``: what memory did, and where everything is."""

from __future__ import annotations

import json
from pathlib import Path

ROWS = {
    "memory": "the right page in memory",
    "counterfactual": "the page with only the asked value changed",
    "shuffled": "another conversation's page",
    "no_memory": "no memory",
    "truncated": "the last words of the history as text",
    "mean_pooled": "mean-pooled text embeddings",
    "full_text": "the whole history as text",
    "untrained": "the right page, proj untrained",
}


def main() -> None:
    evaluation = json.loads(Path("evaluation.json").read_text(encoding="utf-8"))
    registration = json.loads(Path("registration.json").read_text(encoding="utf-8"))
    print(f"\n{evaluation['verdict']['sentence']}.")
    print(f"Recall on {evaluation['samples']['evaluated']} held-out questions (exact answers)")
    for key, meaning in ROWS.items():
        if key in evaluation:
            print(f"  {evaluation[key]['recall']:6.3f}  {meaning}")
    print(f"\nReport      {Path('evaluation.html').resolve()}")
    print(f"Adapter     {Path('adapter').resolve()}")
    print(f"Registered  {registration['name']} version {registration['version']}", end="")
    print(f", alias {registration['alias']}" if registration["alias"] else " (the alias did not move)")


if __name__ == "__main__":
    main()

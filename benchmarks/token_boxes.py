"""Text to packed pages in boxes of one vision token against rows as wide as the page, both ocrmem's.

    python benchmarks/token_boxes.py [--characters N] [--repeats N] [--target 1.2]

Processor seconds from text to pages with their hashes, each side in turn with the other. A line height of 16 px gives
32 characters a vision token of 64 px, 32 px gives 16, 64 px gives 8. Ends with 1 if boxes took more than ``target``
times as long for the four texts together, at the line height of the real presets.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from common.clock import load, pin_to_one_core, seconds_of
from common.texts import texts

from ocrmem.config import RenderSection
from ocrmem.rendering import load_atlas, render_text

LINE_HEIGHTS = (16, 32, 64)


def pages_of(text: str, section: RenderSection) -> list[str]:
    """The text's pages, drawn and named; their hashes."""
    return [page.hash for page in render_text(text, section, load_atlas()).pages]


def main() -> int:
    parser = argparse.ArgumentParser(description="Boxes of one vision token against rows as wide as the page.")
    parser.add_argument("--characters", type=int, default=50_000, help="of each text")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--target", type=float, default=1.2, help="times as long as rows, at most, else exit 1")
    arguments = parser.parse_args()
    before = load()
    print(f"One process, {pin_to_one_core()}; {arguments.characters} characters a text.")
    print(f"{'':14}{'line px':>8}{'rows ms':>9}{'boxes ms':>9}{'ratio':>7}{'pages of rows':>15}{'of boxes':>9}")
    results, together = [], {height: [0.0, 0.0] for height in LINE_HEIGHTS}
    for text in texts(arguments.characters):
        for height in LINE_HEIGHTS:
            sections = [RenderSection(line_height=height), RenderSection(line_height=height, align="token")]
            jobs = [partial(pages_of, text.content, section) for section in sections]
            rows, boxes = seconds_of(jobs, arguments.repeats)
            pages = [len(job()) for job in jobs]
            together[height] = [together[height][0] + rows, together[height][1] + boxes]
            results.append({"text": text.name, "line_height": height, "ratio": boxes / rows, "pages": pages})
            print(
                f"{text.name:14}{height:8}{rows * 1e3:9.2f}{boxes * 1e3:9.2f}{boxes / rows:7.2f}"
                f"{pages[0]:15}{pages[1]:9}",
                flush=True,
            )
    ratios = {height: boxes / rows for height, (rows, boxes) in together.items()}
    print("all four: " + ", ".join(f"{ratio:.2f} at {height} px" for height, ratio in ratios.items()) + f" ({before})")
    print(json.dumps({"texts": results, "together": ratios, "machine": before}))
    return int(ratios[LINE_HEIGHTS[0]] > arguments.target)


if __name__ == "__main__":
    sys.exit(main())

"""The pictures of README.md and docs, made from a real run; each is a page that headless Chromium photographs.

    python scripts/docs_images.py                                  # those that need the adapter in the box alone
    python scripts/docs_images.py --workspace english --demo .     # of `make english`, and of `make demo`
    python scripts/docs_images.py --site site docs                 # of `make docs`

Names after the options choose pictures. A workspace holds what a run left: evaluation.html and .json, smoke/,
checks/ and preview/ (`ocrmem render --preview`); nothing is written there.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from ocrmem import Memory
from ocrmem.evaluation.result import VARIANTS
from ocrmem.generation.memory import MemoryAnswer
from ocrmem.html.svg_charts import bar_chart
from ocrmem.rendering import Page

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
TEMPLATES = Path(__file__).with_name("docs_images")
COLOURS = 64  # of a picture's palette: text and flat colours need no more, and files stay small
# Of the kind that the adapter in the box was trained on, with questions that it answers well and badly.
NOTE = (
    "Notes from Monday. Emma has a dog called Mochi. Arthur plays the accordion. Gina is travelling to Kenya next "
    "summer. Harriet would eat vegetable curry every day. Arthur's great passion is skiing."
)
QUESTIONS = (
    ("What is the name of Emma's dog?", "Mochi"),
    ("What is Arthur's hobby?", "skiing"),
    ("What country will Gina see?", "Kenya"),
)


@dataclass(frozen=True)
class Picture:
    """What a picture shows: an address or HTML, in a window of a size in px."""

    width: int
    height: int
    address: str = ""
    html: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="folder of a finished run")
    parser.add_argument("--demo", type=Path, help="folder in which `make demo` has run")
    parser.add_argument("--site", type=Path, help="folder of the built docs")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder of the pictures (docs/images)")
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []], help="default: all for which there is a source")
    arguments = parser.parse_args()
    sources = {"box": ROOT, "workspace": arguments.workspace, "demo": arguments.demo, "site": arguments.site}
    for name, (source, make) in PICTURES.items():
        folder = sources[source]
        if folder is None and name in arguments.names:
            sys.exit(f"{name} needs --{source}")
        if folder is not None and (name in arguments.names or not arguments.names):
            path = photograph(make(folder.resolve()), arguments.output / f"{name}.png")
            print(f"{path}  {path.stat().st_size // 1000} kB")


def photograph(picture: Picture, path: Path) -> Path:
    """Write what Chromium shows of a picture to ``path``, without the blank rows at its end."""
    with tempfile.TemporaryDirectory() as folder:
        address, shot = picture.address, Path(folder) / "shot.png"
        if picture.html:
            page = Path(folder) / "page.html"
            page.write_text(picture.html, encoding="utf-8")
            address = page.as_uri()
        size = f"--window-size={picture.width},{picture.height}"
        chromium = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1"]
        command = [*chromium, f"--user-data-dir={folder}/profile", f"--screenshot={shot}", size, address]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(shot) as image:
            shown = image.convert("RGB")
        bottom = Image.eval(shown.convert("L"), lambda shade: 255 * (shade < 250)).getbbox()
        shown = shown.crop((0, 0, shown.width, min(shown.height, bottom[3] + 16 if bottom else shown.height)))
        path.parent.mkdir(parents=True, exist_ok=True)
        shown.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def template(name: str, **values: object) -> str:
    """Return the HTML of a template in scripts/docs_images, whose texts are escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(name).render(**values)


def page_uri(page: Page, rows: int | None = None) -> str:
    """Return a page, or its first ``rows`` rows of pixels, as a data: address."""
    image = Image.open(io.BytesIO(page.png()))
    buffer = io.BytesIO()
    image.crop((0, 0, page.size, rows or page.size)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


@cache
def reader() -> Memory:
    """The adapter in the box, with the note read."""
    return Memory.load("english").read(NOTE)


@cache
def answers() -> list[tuple[MemoryAnswer, str]]:
    """What it answers to each question, with and without memory, and what is right."""
    return [(reader().ask(question, compare=True), right) for question, right in QUESTIONS]


def page_grid() -> dict[str, Any]:
    """The note's page and which of its squares are vision tokens."""
    (page,) = reader().pages()
    size = reader().session.maker.config.render.token_size
    side = page.size // size
    kept = page.ink_mask(size).reshape(side, side)
    return {
        "page": page_uri(page),
        "size": page.size,
        "token_size": size,
        "side": side,
        "token_percent": 100 / side,
        "kept": [(int(row), int(column)) for row, column in zip(*kept.nonzero(), strict=True)],
    }


def memory(_: Path) -> Picture:
    """README's: a text, its page with the vision tokens, questions, and answers with and without memory."""
    first = answers()[0][0]
    return Picture(1240, 760, html=template("memory.html", note=NOTE, answers=answers(), first=first, **page_grid()))


def page(_: Path) -> Picture:
    """The page alone, with the text under three of its squares."""
    first, maker = answers()[0][0], reader().session.maker
    under = maker.renderer.under_tokens(reader().conversation()[1:])
    text, fragments = under.text, under.spans.of_page(0)
    drawn = [number for number, found in enumerate(fragments) if any(text[a:b].strip() for a, b in found)]
    shown = {number: "".join(text[a:b] for a, b in fragments[number]) for number in (drawn[0], drawn[3], drawn[5])}
    counts = {"text_tokens": first.text_tokens, "memory_tokens": first.memory_tokens}
    return Picture(960, 600, html=template("page.html", shown=shown, **counts, **page_grid()))


def trained(_: Path) -> Picture:
    """The parts of the model in the box, with their numbers of weights."""
    model = reader().session.scorer.model
    parts = {"encoder": model.ocr_embed, "proj": model.proj, "base": model.base_llm_model}
    sizes = {name: f"{sum(weight.numel() for weight in part.parameters()):,}" for name, part in parts.items()}
    return Picture(960, 400, html=template("trained.html", size=page_grid()["size"], **sizes))


def baselines(workspace: Path) -> Picture:
    result = json.loads((workspace / "evaluation.json").read_text(encoding="utf-8"))
    recall = [(of.name, result[name]["recall"]) for name, of in VARIANTS.items() if name in result]
    chart = bar_chart(recall, title="Recall of each variant", top=1.0)
    return Picture(720, 640, html=template("baselines.html", chart=chart, samples=result["memory"]["samples"]))


def evaluation(workspace: Path) -> Picture:
    return Picture(1000, 1250, address=(workspace / "evaluation.html").as_uri())


def smoke(workspace: Path) -> Picture:
    return Picture(1000, 900, address=(workspace / "smoke" / "report.html").as_uri())


def quality(workspace: Path) -> Picture:
    return Picture(1000, 900, address=(workspace / "checks" / "index.html").as_uri())


def preview(workspace: Path) -> Picture:
    return Picture(1200, 900, address=(workspace / "preview" / "index.html").as_uri())


def docs(site: Path) -> Picture:
    return Picture(1200, 800, address=(site / "index.html").as_uri())


PICTURES: dict[str, tuple[str, Callable[[Path], Picture]]] = {
    "memory": ("box", memory),
    "page": ("box", page),
    "trained": ("box", trained),
    "baselines": ("workspace", baselines),
    "evaluation": ("workspace", evaluation),
    "demo": ("demo", evaluation),
    "smoke": ("workspace", smoke),
    "quality": ("workspace", quality),
    "preview": ("workspace", preview),
    "docs": ("site", docs),
}

if __name__ == "__main__":
    main()

"""Characters per second on one core: ocrmem's glyph atlas against reportlab + poppler and against Pillow, in one run.

    python benchmarks/render.py [--quick] [--characters N] [--chinese-font FILE] [--target 70]

"pdf" is what OCR-MEM and Glyph do: reportlab writes a PDF at 9 pt, poppler's pdftoppm draws it at 1280x1280 px into
PNG files, Pillow reads and resizes them to the encoder's 1024x1024 px. "pdf best" is the same without the PNG files
(pdftoppm writes PPM). Both are spared what those projects do on top: the font is read once, not on every call, and
nothing is cropped. "Pillow" draws the rows that ocrmem has wrapped with `ImageDraw.text`, a line each, into 1-bit
pages of 1024 px: it is spared the wrapping. "ocrmem" is text to packed pages, wrapping and a sha256 of every page
included; "PNG" the same with a PNG of every page besides.

Times are processor seconds of this process and its children, each side in turn with the others, so that other work on
the machine counts for neither. The last table has wall time: one process against two, the best of several runs in
turn; it needs two cores with nothing else to do. Needs reportlab and Pillow (the extras `dev` and `fonts`) and
pdftoppm (`apt-get install poppler-utils`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from xml.sax.saxutils import escape

import reportlab
from common.clock import cores, load, pin_to_one_core, seconds_of
from common.texts import Text, texts
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph, SimpleDocTemplate

from ocrmem.config import RenderSection
from ocrmem.rendering import Atlas, load_atlas, render_text

CHINESE_FONTS = (
    Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"),
    Path("/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc"),
)
VERA = Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"
PDF_SIZE, POINTS, LEADING, DPI = 1280, 9, 10, 72


def ocrmem_pages(text: Text, section: RenderSection, atlas: Atlas) -> list[str]:
    """The text's pages, drawn and named; their hashes."""
    return [page.hash for page in render_text(text.content, section, atlas).pages]


def ocrmem_png(text: Text, section: RenderSection, atlas: Atlas) -> list[tuple[str, bytes]]:
    """The same with PNG files in memory."""
    return [(page.hash, page.png()) for page in render_text(text.content, section, atlas).pages]


def reportlab_and_poppler(text: Text, font: str, pdftoppm: str, kind: str) -> list[Image.Image]:
    """The text's pages as 1024x1024 px pictures, by PDF and files of ``kind`` png or ppm."""
    style = ParagraphStyle(
        "page", fontName=font, fontSize=POINTS, leading=LEADING, wordWrap="CJK" if text.chinese else None
    )
    with tempfile.TemporaryDirectory() as directory:
        pdf = Path(directory) / "text.pdf"
        margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), 0)
        document = SimpleDocTemplate(str(pdf), pagesize=(PDF_SIZE, PDF_SIZE), **margins)
        document.build([Paragraph(escape(line), style) for line in text.content.splitlines()])
        options = ["-r", str(DPI)] + (["-png"] if kind == "png" else [])
        subprocess.run([pdftoppm, *options, str(pdf), str(Path(directory) / "page")], check=True)
        pages = []
        for path in sorted(Path(directory).glob(f"page*.{kind}")):
            with Image.open(path) as picture:
                pages.append(picture.resize((1024, 1024), Image.Resampling.BICUBIC))
        return pages


def pillow(rows: list[list[str]], size: int, font: ImageFont.FreeTypeFont) -> list[Image.Image]:
    """Rows of text, a list for each page, drawn with `ImageDraw.text`."""
    pages = []
    for lines in rows:
        page = Image.new("1", (size, size), 1)
        draw = ImageDraw.Draw(page)
        for number, line in enumerate(lines):
            draw.text((0, 16 * number), line, fill=0, font=font)
        pages.append(page)
    return pages


def rows_of(text: Text, section: RenderSection, atlas: Atlas) -> list[list[str]]:
    """The text's rows as ocrmem wraps them, a list for each page."""
    rendering = render_text(text.content, section, atlas)
    pages: list[list[str]] = [[] for _ in rendering.pages]
    for row in rendering.rows:
        pages[row.page].append(text.content[row.start : row.end].rstrip("\n"))
    return pages


def fonts_for(chosen: Path | None) -> dict[bool, Path]:
    """Register the other way's fonts with reportlab, by their paths; gives that for other texts and for Chinese."""
    found = chosen or next((path for path in CHINESE_FONTS if path.is_file()), None)
    if found is None:
        print(
            "No Chinese TrueType font (apt-get install fonts-wqy-microhei, or --chinese-font FILE): "
            "the other ways draw boxes for Chinese."
        )
    for path in filter(None, (VERA, found)):
        pdfmetrics.registerFont(TTFont(str(path), str(path)))
    return {False: VERA, True: found or VERA}


def one_against_two(text: Text, repeats: int) -> float:
    """How many times as many characters a second two processes draw as one: the best wall time of each."""
    context = multiprocessing.get_context("spawn")
    ends, workers = [], []
    for _ in range(2):
        here, there = context.Pipe()
        workers.append(context.Process(target=_draw_when_told, args=(text, there), daemon=True))
        workers[-1].start()
        here.recv()
        ends.append(here)
    best = {1: float("inf"), 2: float("inf")}
    for _ in range(repeats):
        for count in best:
            start = time.perf_counter()
            for end in ends[:count]:
                end.send(True)
            for end in ends[:count]:
                end.recv()
            best[count] = min(best[count], time.perf_counter() - start)
    for end in ends:
        end.send(False)
    for worker in workers:
        worker.join()
    return 2 * best[1] / best[2]


def _draw_when_told(text: Text, end: Connection) -> None:
    section, atlas = RenderSection(), load_atlas()
    ocrmem_pages(text, section, atlas)
    end.send(True)
    while end.recv():
        for _ in range(10):
            ocrmem_pages(text, section, atlas)
        end.send(True)


def compare(text: Text, section: RenderSection, atlas: Atlas, font: Path, repeats: int, pdftoppm: str) -> dict:
    """Thousands of characters per second of every way."""
    rows = rows_of(text, section, atlas)
    drawn = ImageFont.truetype(str(font), 14)
    fast = seconds_of([partial(ocrmem_pages, text, section, atlas)], repeats * 10)
    slow = seconds_of(
        [
            partial(ocrmem_png, text, section, atlas),
            partial(pillow, rows, section.page_size, drawn),
            partial(reportlab_and_poppler, text, str(font), pdftoppm, "png"),
            partial(reportlab_and_poppler, text, str(font), pdftoppm, "ppm"),
        ],
        repeats,
    )
    names = ("ocrmem", "PNG", "Pillow", "pdf", "pdf best")
    return {name: len(text.content) / 1e3 / seconds for name, seconds in zip(names, fast + slow, strict=True)} | {
        "pages/s": len(rows) / fast[0]
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Characters per second against reportlab + poppler and Pillow.")
    parser.add_argument("--quick", action="store_true", help="20,000 characters of each text, once")
    parser.add_argument("--characters", type=int, default=50_000, help="of each text")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--chinese-font", type=Path, default=None, help="TrueType font of the other ways")
    parser.add_argument("--target", type=float, default=70.0, help="times `pdf` that prose must reach, else exit 1")
    arguments = parser.parse_args()
    characters, repeats = (20_000, 1) if arguments.quick else (arguments.characters, arguments.repeats)

    pdftoppm = shutil.which("pdftoppm")
    if pdftoppm is None:
        print("pdftoppm is missing: apt-get install poppler-utils")
        return 2
    before = load()
    scaling = one_against_two(texts(characters)[0], 3 * repeats) if cores() > 1 else None
    print(f"One process, {pin_to_one_core()}; {characters} characters a text, median of {repeats}.")
    fonts = fonts_for(arguments.chinese_font)
    section, atlas = RenderSection(), load_atlas()
    titles = ("ocrmem", "PNG", "Pillow", "pdf", "pdf best", "/pdf", "/pdf best", "/Pillow", "pages/s")
    print(f"{'kchar/s':14}" + "".join(f"{title:>10}" for title in titles))
    results, missed = {}, False
    for text in texts(characters):
        rate = compare(text, section, atlas, fonts[text.chinese], repeats, pdftoppm)
        ratios = [rate["ocrmem"] / rate[name] for name in ("pdf", "pdf best", "Pillow")]
        print(
            f"{text.name:14}{rate['ocrmem']:10.0f}{rate['PNG']:10.0f}{rate['Pillow']:10.1f}{rate['pdf']:10.1f}"
            f"{rate['pdf best']:10.1f}" + "".join(f"{r:10.0f}" for r in ratios) + f"{rate['pages/s']:10.0f}",
            flush=True,
        )
        results[text.name] = rate
        missed |= "prose" in text.name and min(rate["ocrmem"], rate["PNG"]) < arguments.target * rate["pdf"]
    if scaling is None:
        print("Two processes: not measured, there is one core.")
    else:
        print(f"Two processes: {scaling:.2f} times one (wall time; {before})")
    if missed:
        print(f"Prose at {arguments.target:g} times `pdf` was not shown.")
    print(json.dumps({"kchar/s": results, "two_processes": scaling, "machine": before}))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

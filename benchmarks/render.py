"""Characters per second on one core: ocrmem's glyph atlas against reportlab + poppler, in one run.

    python benchmarks/render.py [--characters N] [--chinese-font FILE] [--target 70]

The other way is what OCR-MEM and Glyph do: reportlab writes a PDF at 9 pt, poppler's pdftoppm draws it at
1280x1280 px into PNG files, Pillow reads and resizes them to the encoder's 1024x1024 px ("pdf"). "pdf best"
is the same without the PNG files (pdftoppm writes PPM). Both are spared what those projects do on top: the
font is read once, not on every call, and nothing is cropped. "pages" and "PNG" are ocrmem: text to packed
pages, wrapping included, and the same with a PNG of every page.

Times are processor seconds of this process and its children, so that other work on the machine counts for
neither side. Needs reportlab and Pillow (the extras `dev` and `fonts`) and pdftoppm (`apt-get install
poppler-utils`). Texts are this project's own, sentences drawn by a fixed seed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

import reportlab
from PIL import Image
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph, SimpleDocTemplate

from ocrmem.config import RenderSection
from ocrmem.render import Atlas, load_atlas, render_text

CHINESE_FONTS = (
    Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"),
    Path("/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc"),
)
PDF_SIZE, POINTS, LEADING, DPI = 1280, 9, 10, 72
ENGLISH = (
    "The ferry left late that morning because the fog had not lifted from the harbour.",
    "Nobody on deck seemed to mind; they leaned on the rail and listened to the bell.",
    "She had packed in a hurry and only now remembered the letter on the kitchen table.",
    "By noon the coast was a thin grey line, and then it was nothing at all.",
    '"You will want a warmer coat," said the man beside her, who had crossed many times before.',
    "The engine changed its note, slowed, and for a moment there was no sound but water.",
    "It is difficult to explain to someone from the city how dark an island can be at night.",
    "Every house kept a lamp in the window, partly for the boats and partly out of habit.",
    "He wrote the figures in a small blue notebook: 14 crates, 3 of them damaged, none missing.",
    "In spring the road washes out, and the post comes on foot, when it comes.",
    "Later they would disagree about who had seen the light first, and how long it had lasted.",
    "The schoolteacher, who was also the librarian, lent her books two at a time.",
)
CHAT = (
    "Can you remind me what we decided?",
    "Sure. The meeting moved to Thursday at 15:30, room 204.",
    "Thanks!",
    "How do I undo the last commit but keep my changes?",
    "Use `git reset --soft HEAD~1`; your files stay as they are.",
    "My sister's flight lands at 6, so dinner is at eight.",
    "Noted: dinner at eight.",
    "ok",
    "Does the blue one come in a larger size?",
    "It does, but only from the second shop, for $42.50 with delivery.",
    "Please make the tone a bit friendlier, and shorter if you can.",
)
CHINESE = (
    "那天早晨有雾，渡船比平时晚开了一个钟头。",
    "甲板上的人并不着急，他们靠着栏杆，听远处的钟声。",
    "她走得匆忙，这时才想起那封信还放在厨房的桌子上。",
    "到了中午，海岸只剩下一条灰色的细线，后来连这条线也看不见了。",
    "“岛上风大，你应该多带一件衣服。”旁边的老人说。",
    "机器的声音慢慢低下去，有一会儿，四周只听得见水声。",
    "城里来的人很难想象，岛上的夜晚究竟有多黑。",
    "每一家都在窗前点一盏灯，一半是为了船，一半是因为习惯。",
    "他在蓝色的小本子上记下：货物十四箱，损坏三箱，没有遗失。",
    "春天路常常被水冲断，邮差只好步行，来不来全看天气。",
    "后来谈起这件事，大家都说不清是谁先看见那道光的。",
    "学校的老师也管图书馆，每次借给她两本书。",
)


@dataclass(frozen=True)
class Text:
    name: str
    content: str
    chinese: bool


def texts(characters: int) -> list[Text]:
    """English prose, English chat and Chinese prose of about so many characters each."""
    return [
        Text("English prose", _paragraphs(ENGLISH, characters, " ", (5, 9)), False),
        Text("English chat", _chat(characters), False),
        Text("Chinese prose", _paragraphs(CHINESE, characters, "", (5, 9)), True),
    ]


def _paragraphs(sentences: tuple[str, ...], characters: int, space: str, length: tuple[int, int]) -> str:
    generator, parts, total = random.Random(0), [], 0
    while total < characters:
        parts.append(space.join(generator.choices(sentences, k=generator.randint(*length))) + "\n")
        total += len(parts[-1])
    return "".join(parts)


def _chat(characters: int) -> str:
    generator, parts, total = random.Random(0), [], 0
    while total < characters:
        parts.append(("user: ", "assistant: ")[len(parts) % 2] + generator.choice(CHAT) + "\n")
        total += len(parts[-1])
    return "".join(parts)


def seconds_of(job: Callable[[], object], repeats: int) -> float:
    """Processor seconds, children included: the median of ``repeats`` runs after one that warms up."""
    job()
    times = []
    for _ in range(repeats):
        start = _processor_seconds()
        job()
        times.append(_processor_seconds() - start)
    return statistics.median(times)


def _processor_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


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


def ocrmem_png(text: Text, section: RenderSection, atlas: Atlas) -> list[bytes]:
    """The text's pages as PNG files in memory."""
    return [page.png() for page in render_text(text.content, section, atlas).pages]


def one_core() -> str:
    """Pin this process, and so its children, to one core where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned to a core"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"pinned to core {core}"


def fonts_for(chosen: Path | None) -> dict[bool, str]:
    """Register the fonts of the other way; gives their names for other texts and for Chinese."""
    pdfmetrics.registerFont(TTFont("Vera", str(Path(reportlab.__file__).parent / "fonts" / "Vera.ttf")))
    found = chosen or next((path for path in CHINESE_FONTS if path.is_file()), None)
    if found is None:
        print(
            "No Chinese TrueType font (apt-get install fonts-wqy-microhei, or --chinese-font FILE): "
            "the other way draws boxes for Chinese."
        )
        return {False: "Vera", True: "Vera"}
    pdfmetrics.registerFont(TTFont("Chinese", str(found)))
    return {False: "Vera", True: "Chinese"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Characters per second against reportlab + poppler.")
    parser.add_argument("--characters", type=int, default=100_000, help="of each text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chinese-font", type=Path, default=None, help="TrueType font of the other way")
    parser.add_argument("--target", type=float, default=70.0, help="times `pdf` that prose must reach, else exit 1")
    arguments = parser.parse_args()

    pdftoppm = shutil.which("pdftoppm")
    print(f"One process, {one_core()}; {arguments.characters} characters a text, median of {arguments.repeats}.")
    if pdftoppm is None:
        print("pdftoppm is missing (apt-get install poppler-utils): no comparison, ocrmem's figures only.")
    fonts = fonts_for(arguments.chinese_font)
    section, atlas = RenderSection(), load_atlas()
    titles = ("pages", "PNG", "pdf", "pdf best", "pages/pdf", "pages/best", "PNG/pdf", "pages/s")
    print(f"{'kchar/s':14}" + "".join(f"{title:>11}" for title in titles))
    missed = pdftoppm is None
    for text in texts(arguments.characters):
        thousands = len(text.content) / 1e3
        pages = len(render_text(text.content, section, atlas).pages)
        bits = seconds_of(partial(render_text, text.content, section, atlas), arguments.repeats * 10)
        png = seconds_of(partial(ocrmem_png, text, section, atlas), arguments.repeats)
        row = f"{text.name:14}{thousands / bits:11.0f}{thousands / png:11.0f}"
        if pdftoppm is None:
            print(row + f"{'-':>11}" * 5 + f"{pages / bits:11.0f}")
            continue
        pdf, best = (
            seconds_of(partial(reportlab_and_poppler, text, fonts[text.chinese], pdftoppm, kind), arguments.repeats)
            for kind in ("png", "ppm")
        )
        row += f"{thousands / pdf:11.1f}{thousands / best:11.1f}"
        print(f"{row}{pdf / bits:11.0f}{best / bits:11.0f}{pdf / png:11.0f}{pages / bits:11.0f}", flush=True)
        missed |= "prose" in text.name and min(pdf / bits, pdf / png) < arguments.target
    if missed:
        print(f"Prose at {arguments.target:g} times `pdf` was not shown.")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

"""From a page to the encoder's float32 tensor: packed bits against PNG files and torchvision's transforms, in one run.

    python benchmarks/page_tensor.py [--quick] [--target 10]

The other way is what a data loader of pictures does: Pillow reads the PNG, converts it to RGB, and torchvision's
Resize (to the size that the page has), ToTensor and Normalize(0.5, 0.5) make [3, 1024, 1024] of it. "no resize" is
the same without Resize. Both give the same numbers as `Page.pixels`, bit for bit, which is asserted. Times are
processor seconds of one thread, the ways in turn. "peak" is the most memory that `Page.pixels` holds, over the tensor's
own 12.6 MB (as tracemalloc sees it): 1.00 means that nothing is copied.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tracemalloc
from functools import partial

import numpy as np
import torch
from common.clock import pin_to_one_core, seconds_of
from common.texts import texts
from PIL import Image
from torchvision import transforms

from ocrmem.config import RenderSection
from ocrmem.rendering import Page, load_atlas, render_text


def from_png(content: bytes, steps: transforms.Compose) -> torch.Tensor:
    """The page's tensor the other way."""
    with Image.open(io.BytesIO(content)) as picture:
        tensor: torch.Tensor = steps(picture.convert("RGB"))
    return tensor


def from_bits(page: Page) -> torch.Tensor:
    """The page's tensor as encode makes it."""
    return torch.from_numpy(page.pixels())


def all_of(job: object, items: list[object]) -> None:
    for item in items:
        job(item)  # type: ignore[operator]


def peak_bytes(page: Page) -> int:
    """The most that numpy holds while a tensor is made."""
    page.pixels()
    tracemalloc.start()
    try:
        page.pixels()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Page to normalised tensor, against PNG and torchvision.")
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--pages", type=int, default=4, help="of each text")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--target", type=float, default=10.0, help="times the other way's rate, else exit 1")
    arguments = parser.parse_args()
    repeats = 1 if arguments.quick else arguments.repeats
    torch.set_num_threads(1)
    normal = transforms.Normalize([0.5] * 3, [0.5] * 3)
    section, atlas = RenderSection(), load_atlas()
    resize = transforms.Resize((section.page_size, section.page_size), transforms.InterpolationMode.BICUBIC)
    ways = {
        "PNG": transforms.Compose([resize, transforms.ToTensor(), normal]),
        "no resize": transforms.Compose([transforms.ToTensor(), normal]),
    }
    print(f"One thread, {pin_to_one_core()}; {arguments.pages} pages a text, median of {repeats}.")
    print(f"{'ms a page':14}{'bits':>8}" + "".join(f"{name:>11}" for name in ways) + f"{'PNG/bits':>11}{'peak':>9}")
    results, missed = {}, False
    for text in texts(12_000 * arguments.pages):
        pages = render_text(text.content, section, atlas).pages[: arguments.pages]
        files = [page.png() for page in pages]
        for page, file in zip(pages, files, strict=True):
            for name, steps in ways.items():
                if not torch.equal(from_bits(page), from_png(file, steps)):
                    raise SystemExit(f"{text.name}: {name} gives other numbers than Page.pixels")
        jobs = [partial(all_of, from_bits, pages)]
        jobs += [partial(all_of, partial(from_png, steps=steps), files) for steps in ways.values()]
        bits, *others = (1e3 * seconds / len(pages) for seconds in seconds_of(jobs, repeats))
        size = 3 * section.page_size**2 * np.dtype(np.float32).itemsize
        peak = peak_bytes(pages[0]) / size
        print(
            f"{text.name:14}{bits:8.2f}"
            + "".join(f"{other:11.2f}" for other in others)
            + f"{others[0] / bits:11.1f}{peak:8.2f}x"
        )
        results[text.name] = {"bits_ms": bits, "ratio": others[0] / bits, "peak_over_tensor": peak}
        missed |= others[0] / bits < arguments.target
    print("Equal bit for bit: yes, all ways on all pages.")
    if missed:
        print(f"{arguments.target:g} times the other way was not shown.")
    print(json.dumps(results))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

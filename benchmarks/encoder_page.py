"""How long one page takes through the full-size encoder here, and how much memory.

    python benchmarks/encoder_page.py                       # random weights, 1024 px, float32
    python benchmarks/encoder_page.py --page-size 640 --threads 1
    python benchmarks/encoder_page.py --location DIRECTORY   # DeepSeek-OCR's own weights

Time and memory do not depend on the values of the weights, so random ones measure the same. The page is a
rendered chat. On a GPU the first page, which compiles kernels, is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import torch

from ocrmem.config import LabelSection, RenderSection
from ocrmem.conversations import Message
from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.deepencoder import DeepEncoder, Features
from ocrmem.encoder.device import DTYPES, pick_device
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.rendering import Page, load_atlas, render_text, transcript

TURNS = [
    Message("user", "Where did we leave the keys of the summer house? I need them by Friday."),
    Message("assistant", "You put them into the blue drawer in the hall, next to the spare batteries."),
    Message("user", "好的，谢谢。Please also note that the meeting moved to 14:30 in room 204."),
    Message("assistant", "Noted: `meeting = {'time': '14:30', 'room': 204}` 👍"),
]


def chat_page(size: int) -> Page:
    """A full page of chat, `size` px, in the layout of the real presets."""
    settings = RenderSection(page_size=size, token_size=64)
    text = transcript(TURNS * 40, LabelSection())
    return render_text(text, settings, load_atlas()).pages[0]


def build(location: str | None, features: Features, dtype: torch.dtype) -> DeepEncoder:
    if location is not None:
        return DeepEncoder.from_pretrained(location, features=features, dtype=dtype)
    return DeepEncoder(deepseek_ocr_config(), features).to(dtype)


def peak_gib(device: torch.device) -> float:
    """Most memory held so far: of the process, or of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(encoder: DeepEncoder, page: Page, repeats: int) -> tuple[torch.Tensor, list[float]]:
    """The page's features, and the seconds of each repetition."""
    cuda = encoder.device.type == "cuda"
    if cuda:
        encode_pages(encoder, [page])
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        features = encode_pages(encoder, [page])
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return features, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--location", help="directory or hub name with DeepSeek-OCR; random weights without")
    parser.add_argument("--features", choices=["sum", "concat"], default="sum")
    parser.add_argument("--page-size", type=int, choices=[512, 640, 1024, 1280], default=1024)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = pick_device(arguments.device)
    torch.manual_seed(0)
    start = time.perf_counter()
    encoder = build(arguments.location, arguments.features, DTYPES[arguments.dtype]).to(device)
    loading = time.perf_counter() - start
    page = chat_page(arguments.page_size)
    features, seconds = measure(encoder, page, arguments.repeats)
    result = {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "page_px": page.size,
        "ink_share": round(page.ink_pixels / page.size**2, 4),
        "tokens": features.shape[1],
        "tokens_with_ink": int(page.ink_mask(encoder.token_size).sum()),
        "feature_size": features.shape[2],
        "finite": bool(features.isfinite().all()),
        "dtype": arguments.dtype,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "build_seconds": round(loading, 2),
        "page_seconds": [round(value, 2) for value in seconds],
        "peak_memory_gib": round(peak_gib(device), 2),
    }
    print(json.dumps(result, indent=2))
    return 0 if result["finite"] else 1


if __name__ == "__main__":
    sys.exit(main())

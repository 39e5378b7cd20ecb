"""How a dataset grows, how fast it is made and read, and what memory that takes.

    python benchmarks/dataset.py [--quick] [--samples 10000 100000]

1. Growth: conversations of k turns, pages of 1024 px. Counted: pages that the samples refer to, which a way without
   sharing would store and encode, and the different ones, which ocrmem does.
2. Rates of `render` in one process: from nothing, and resuming with every part complete but the last step undone; of
   opening the dataset, and of reading samples in a training's order. Bytes a page on disk.
3. Memory: how far render, check and the training's loader rise above where they were once everything is imported, at
   two numbers of samples, each in a process of its own (Linux). What a million would take is the line through both.

Rates are in processor seconds of one process. Conversations are drawn by a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import torch
from common.clock import processor_seconds
from common.inputs import CHAT, ROOT, chat_tokenizer, conversations, grown_config, write_grown
from common.memory import PeakProcess, in_own_process
from common.texts import CHAT as ANSWERS
from common.texts import ENGLISH

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, Message
from ocrmem.dataset import build
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.samples import SampleMaker, page_row
from ocrmem.dataset.shards import page_writer
from ocrmem.rendering import load_atlas, render_text
from ocrmem.tokens import load_tokenizer
from ocrmem.training.curriculum import RunSampler, memory_lengths

BATCH = 64
VERBS = ("render", "check", "loader")


def growth(most: int) -> list[dict[str, int]]:
    """Pages by number of turns, counted."""
    config = RunConfig.from_dict(
        {
            "model": {
                "base_model_name": "samples/chat",  # its vocabulary; no such model is loaded
                "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
                "vision_embedding_size": 1024,
                "context_threshold": 64,
                "max_seq_length": 40_000,
            },
            "render": {"max_pages": 100},
        }
    )
    maker = SampleMaker(config, chat_tokenizer())
    generator = random.Random(0)
    rows = []
    turns = 1
    while turns <= most:
        messages = [
            Message(("user", "assistant")[n % 2], " ".join(generator.choices((ENGLISH, ANSWERS)[n % 2], k=6)))
            for n in range(2 * turns + 2)
        ]
        made = maker.make(Conversation(f"k{turns}", tuple(messages), "train", "drawn"))
        rows.append(
            {
                "turns": turns,
                "characters": sum(len(message.content) for message in messages),
                "referred": sum(len(sample.pages) for sample in made.samples),
                "stored": len(made.pages),
            }
        )
        turns *= 2
    return rows


def page_bytes(root: Path) -> dict[str, float]:
    """Bytes of a stored page of 1024 px."""
    config, atlas = RunConfig(), load_atlas()
    docs = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    chat = [message.content for found in conversations(CHAT) for message in found.messages]
    chinese = [content for content in dict.fromkeys(chat) if any("\u4e00" <= letter <= "\u9fff" for letter in content)]
    contents = {
        "docs/*.md in full rows": " ".join(" ".join(docs).split()),
        "docs/*.md": "".join(docs),
        "samples/chat, Chinese, in full rows": "".join("".join(chinese).split()),
        "samples/chat": "\n".join(dict.fromkeys(chat)),
    }
    sizes = {}
    for name, content in contents.items():
        pages = render_text(content, config.render, atlas).pages
        path = root / "pages.parquet"
        with page_writer(path) as writer:
            for page in pages:
                writer.add(page_row(page, config.render.token_size))
        sizes[name] = path.stat().st_size / len(pages)
    return sizes


def rates(root: Path, samples: int) -> dict[str, float]:
    """What a processor second of each does."""
    config = grown_config(root)
    write_grown(root, samples)
    load_tokenizer(config)
    result = {}
    with mock.patch.object(build, "_assemble", side_effect=KeyboardInterrupt):
        start = processor_seconds()
        try:
            build.build_dataset(config)
        except KeyboardInterrupt:
            result["render samples/s"] = samples / (processor_seconds() - start)
    start = processor_seconds()
    build.build_dataset(config)
    result["resume samples/s"] = samples / (processor_seconds() - start)
    start = processor_seconds()
    dataset = MemoryDataset.open(root / "dataset")
    result["open pages/s"] = len(dataset.page_hashes()) / (processor_seconds() - start)
    result["dataset bytes a sample"] = sum(s["bytes"] for s in dataset.manifest["shards"]) / samples
    stored = dataset.samples("train")
    start = processor_seconds()
    for _ in stored:
        pass
    result["read samples/s, in order"] = len(stored) / (processor_seconds() - start)
    order = random.Random(0).sample(range(len(stored)), min(2000, len(stored)))
    with mock.patch("ocrmem.dataset.stored_samples._CACHED_BYTES", 0):
        start = processor_seconds()
        for index in order[:200]:
            stored[index]
        result["read samples/s, any, nothing cached"] = 200 / (processor_seconds() - start)
    for index in order:
        stored[index]
    start = processor_seconds()
    for index in order:
        stored[index]
    result["read samples/s, any, cached"] = len(order) / (processor_seconds() - start)
    return result


def rise(verb: str, root: Path) -> dict[str, float]:
    """How far the memory of this process rises while the verb runs, in MB."""
    import great_expectations  # noqa: F401  # what is imported is not counted
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    config = grown_config(root)
    load_tokenizer(config)
    load_atlas().break_class  # noqa: B018
    start = time.perf_counter()
    with PeakProcess() as memory:
        _VERB[verb](config)
    return {"mb": memory.require_mb(), "seconds": time.perf_counter() - start}


def _check(config: RunConfig) -> None:
    from ocrmem.dataset.quality import check_dataset

    check_dataset(config)


def _load(config: RunConfig) -> None:
    """What `train` does with a dataset: open it, sort it by memory, and draw samples."""
    dataset = MemoryDataset.open(config.paths.dataset)
    samples = dataset.samples("train")
    sampler = RunSampler(memory_lengths(samples), BATCH, 100_000, 0.5, 0)
    for index, _ in zip(_last_steps(sampler), range(4096), strict=False):
        for page in samples[index].pages:
            dataset.kept(page)


def _last_steps(sampler: RunSampler) -> Iterator[int]:
    for step in range(sampler.growing_steps, sampler.max_steps):
        yield from sampler.step_indices(step)


_VERB: dict[str, Callable[[RunConfig], Any]] = {"render": build.build_dataset, "check": _check, "loader": _load}


def memory(sizes: list[int]) -> dict[str, list[dict[str, float]]]:
    """`rise` of every verb at every size, each in its own process; the sizes beside each other."""

    def of_size(size: int) -> list[dict[str, float]]:
        with tempfile.TemporaryDirectory() as directory:
            write_grown(Path(directory), size)
            return [in_own_process(__file__, verb, directory) for verb in VERBS]

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(of_size, sizes))
    return {verb: [rises[number] for rises in found] for number, verb in enumerate(VERBS)}


def main() -> int:
    parser = argparse.ArgumentParser(description="How a dataset grows; rates and memory.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples for memory")
    parser.add_argument("--samples", type=int, nargs=2, default=[10_000, 100_000], help="of the two measurements")
    parser.add_argument("--child", nargs=2, metavar=("VERB", "DIRECTORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(rise(arguments.child[0], Path(arguments.child[1]))))
        return 0
    torch.set_num_threads(1)
    sizes = [size // 10 for size in arguments.samples] if arguments.quick else arguments.samples

    print(f"{'turns':>6}{'characters':>12}{'pages referred to':>19}{'stored':>8}{'saved':>7}{'stored a turn':>15}")
    table = growth(64)
    for row in table:
        saved = 1 - row["stored"] / max(row["referred"], 1)
        print(
            f"{row['turns']:6}{row['characters']:12}{row['referred']:19}{row['stored']:8}{saved:7.0%}"
            f"{row['stored'] / row['turns']:15.2f}",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as directory:
        sizes_of_pages = page_bytes(Path(directory))
    print("Bytes a page of 1024 px, text of this repository:")
    for name, size in sizes_of_pages.items():
        print(f"  {name:38}{size:12,.0f}")
    with tempfile.TemporaryDirectory() as directory:
        measured = rates(Path(directory), 5000)
        for name, value in measured.items():
            print(f"  {name:38}{value:12,.0f}", flush=True)
    rises = memory(sizes)
    print(
        f"{'MB above imports':18}" + "".join(f"{size:>12,}" for size in sizes) + f"{'1,000,000':>12}{'B a sample':>12}"
    )
    for verb, (small, large) in rises.items():
        slope = (large["mb"] - small["mb"]) / (sizes[1] - sizes[0])
        million = large["mb"] + slope * (1_000_000 - sizes[1])
        print(f"{verb:18}{small['mb']:12.0f}{large['mb']:12.0f}{million:12.0f}{1e6 * slope:12.0f}")
    most = max(sizes_of_pages.values())
    print(json.dumps({"growth": table, "page_bytes": sizes_of_pages, "rates": measured, "mb": rises}))
    if most > 25_000:
        print(f"A page takes {most:,.0f} bytes, more than 25 kB.")
    return int(most > 25_000)


if __name__ == "__main__":
    sys.exit(main())

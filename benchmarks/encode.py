"""What `encode` does a second, what it leaves out, and what memory it takes.

    python benchmarks/encode.py [--quick]

1. Rate: pages of the tiny preset (256 px) and of a medium encoder (15 M parameters, 512 and 1024 px) through the
   encoder one at a time and in the batches that `encode` takes, and the same batches through transformers' own
   attention, which makes the bias of a batch at once; processor seconds of one thread, in turn. The features are
   compared. "MB" is the most that tensors made on the way take together.
2. What is left out, counted on samples/conversations and samples/chat: pages that samples refer to against the
   different ones that are encoded, and vision tokens of blank patches.
3. Encoder calls: pages that reach the encoder for each different page of a dataset, and on a second run.
4. Memory: how far `encode` rises above where it was once everything is loaded, at two numbers of pages, each in a
   process of its own (Linux).

Weights are random: time and memory do not depend on their values.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common.clock import pin_to_one_core, seconds_of
from common.inputs import CHAT, TINY, chat_tokenizer, conversations, tiny_config
from common.memory import PeakProcess, PeakTensors, in_own_process
from common.models import medium_encoder, parameters
from common.texts import texts
from transformers.models.unlimited_ocr.modeling_unlimited_ocr import UnlimitedOcrSamVisionSdpaAttention

from ocrmem.config import RenderSection, RunConfig
from ocrmem.dataset.samples import SampleMaker, page_row
from ocrmem.dataset.schema import SCHEMA_VERSION
from ocrmem.dataset.shards import describe, page_writer
from ocrmem.encoder.attention import BlockedAttention
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.encode import encode_dataset
from ocrmem.encoder.page_encoding import batch_size, encode_pages
from ocrmem.facts import tokens_per_page
from ocrmem.files import write_json
from ocrmem.model.tiny.encoder import random_tiny_encoder
from ocrmem.rendering import Page, load_atlas, render_text
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer


def pages_of(count: int, section: RenderSection) -> list[Page]:
    """Different full pages."""
    characters = 2 * count * (section.page_size // 8) * (section.page_size // section.line_height)
    drawn = render_text(texts(characters)[0].content, section, load_atlas()).pages
    return list({page.hash: page for page in drawn}.values())[:count]


def rate(encoder: DeepEncoder, pages: list[Page], repeats: int) -> dict[str, Any]:
    """Pages per processor second: one at a time, batched, and batched through transformers' own attention."""
    for module in encoder.modules():
        if isinstance(module, BlockedAttention):  # of random weights these are zeros, which would hide a mistake
            torch.nn.init.normal_(module.rel_pos_h, std=0.1)
            torch.nn.init.normal_(module.rel_pos_w, std=0.1)
    other = copy.deepcopy(encoder)
    for module in other.modules():
        if isinstance(module, BlockedAttention):
            module.__class__ = UnlimitedOcrSamVisionSdpaAttention
    batch = batch_size(pages[0].size, encoder.device)
    some = pages[:batch]
    if not torch.equal(encode_pages(encoder, some), encode_pages(other, some)):
        raise SystemExit("transformers' attention gives other features")
    peaks = []
    for each in (encoder, other):
        with PeakTensors() as memory:
            encode_pages(each, some)
        peaks.append(memory.peak / 1e6)

    def singly() -> None:
        for page in pages:
            encode_pages(encoder, [page])

    jobs = [singly, partial(encode_pages, encoder, pages), partial(encode_pages, other, pages)]
    single, batched, theirs = (len(pages) / seconds for seconds in seconds_of(jobs, repeats))
    return {
        "batch": batch,
        "singly": single,
        "batched": batched,
        "transformers": theirs,
        "mb": peaks[0],
        "transformers_mb": peaks[1],
    }


def left_out(maker: SampleMaker, path: Path, most: int) -> dict[str, float]:
    """Shares of pages and tokens of the first conversations that are never encoded or never enter a sequence."""
    referred, stored, tokens, kept = 0, set(), 0, 0
    per_page = tokens_per_page(maker.config.render.page_size, maker.config.render.token_size)
    for conversation in conversations(path)[:most]:
        made = maker.make(conversation)
        for sample in made.samples:
            referred += len(sample.pages)
            tokens += per_page * len(sample.pages)
            kept += sample.memory_tokens
        stored |= {row.hash for row in made.pages}
    return {
        "referred": referred,
        "stored": len(stored),
        "pages saved": 1 - len(stored) / referred,
        "tokens": tokens,
        "kept": kept,
        "tokens saved": 1 - kept / tokens,
    }


def chat_config() -> RunConfig:
    """DeepSeek-OCR's pages for samples/chat."""
    values = {
        "model": {
            "base_model_name": "samples/chat",  # its vocabulary; no such model is loaded
            "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
            "vision_embedding_size": 1024,
            "context_threshold": 64,
            "max_seq_length": 8192,
        }
    }
    return RunConfig.from_dict(values)


def write_pages(root: Path, count: int) -> RunConfig:
    """A dataset of pages alone, and its settings."""
    values = tiny_config().as_dict() | {"paths": {"dataset": str(root / "dataset"), "features": str(root / "features")}}
    config = RunConfig.from_dict(values)
    path = root / "dataset" / "pages" / "pages-00000.parquet"
    path.parent.mkdir(parents=True)
    with page_writer(path) as writer:
        for page in pages_of(count, config.render):
            writer.add(page_row(page, config.render.token_size))
    settings = {"render": config.render.model_dump(mode="json"), "model": {"drop_blank_tokens": True}}
    shards = [describe(path, root / "dataset", count)]
    manifest = {"schema_version": SCHEMA_VERSION, "config": settings, "shards": shards}
    write_json(root / "dataset" / "manifest.json", manifest)
    return config


class Counting(torch.nn.Module):
    """An encoder that counts the pages it is given."""

    def __init__(self, encoder: DeepEncoder) -> None:
        super().__init__()
        self.encoder, self.pages = encoder, 0

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("encoder"), name)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pages += len(pixels)
        result: torch.Tensor = self.encoder(pixels)
        return result


def calls(count: int) -> dict[str, int]:
    """Pages that reach the encoder in two runs over a dataset of ``count`` pages."""
    with tempfile.TemporaryDirectory() as directory:
        config = write_pages(Path(directory), count)
        counted = []
        for _ in range(2):
            encoder = Counting(random_tiny_encoder(0))
            encode_dataset(config, encoder)  # type: ignore[arg-type]
            counted.append(encoder.pages)
    return {"pages": count, "first run": counted[0], "second run": counted[1]}


def rise(count: int) -> float:
    """How far the memory of this process rises while ``count`` pages are encoded, in MB."""
    with tempfile.TemporaryDirectory() as directory:
        config = write_pages(Path(directory), count)
        encoder = random_tiny_encoder(0)
        encode_pages(encoder, pages_of(16, config.render))
        with PeakProcess() as memory:
            encode_dataset(config, encoder)
    return memory.require_mb()


def main() -> int:
    parser = argparse.ArgumentParser(description="Rates, savings and memory of encode.")
    parser.add_argument("--quick", action="store_true", help="fewer pages, once")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        print(json.dumps(rise(arguments.child)))
        return 0
    sizes = (100, 400) if arguments.quick else (150, 1500)
    repeats = 1 if arguments.quick else 2
    print(f"One thread, {pin_to_one_core()}.")
    tiny, medium, large = random_tiny_encoder(0), medium_encoder(512, 64), medium_encoder(1024, 64)
    results: dict[str, Any] = {"rate": {}, "left_out": {}}
    print(
        f"{'pages/s':28}{'batch':>7}{'singly':>9}{'batched':>9}{'gain':>7}{'transf.':>9}{'times':>7}"
        f"{'MB':>7}{'transf.':>9}"
    )
    for name, encoder, pages in (
        (f"tiny, {parameters(tiny)}, 256 px", tiny, pages_of(64, tiny_config().render)),
        (f"medium, {parameters(medium)}, 512 px", medium, pages_of(8, RenderSection(page_size=512))),
        (f"medium, {parameters(large)}, 1024 px", large, pages_of(2, RenderSection())),
    ):
        row = results["rate"][name] = rate(encoder, pages, repeats)
        gain, times = row["batched"] / row["singly"], row["batched"] / row["transformers"]
        print(
            f"{name:28}{row['batch']:7}{row['singly']:9.2f}{row['batched']:9.2f}{gain:7.2f}{row['transformers']:9.2f}"
            f"{times:7.2f}{row['mb']:7.0f}{row['transformers_mb']:9.0f}",
            flush=True,
        )

    print(f"{'left out':24}{'referred':>9}{'encoded':>9}{'saved':>7}{'tokens':>10}{'kept':>9}{'saved':>7}")
    makers = {
        TINY: SampleMaker(tiny_config(), build_tiny_tokenizer()),
        CHAT: SampleMaker(chat_config(), chat_tokenizer()),
    }
    for path, maker in makers.items():
        row = results["left_out"][path.name] = left_out(maker, path, 50 if arguments.quick else 400)
        print(
            f"samples/{path.name:16}{row['referred']:9,}{row['stored']:9,}{row['pages saved']:7.0%}"
            f"{row['tokens']:10,}{row['kept']:9,}{row['tokens saved']:7.0%}",
            flush=True,
        )
    counted = results["calls"] = calls(100)
    print("Encoder calls for {pages} pages: {first run} pages, on a second run {second run}.".format(**counted))
    rises = []
    for size in sizes:
        rises.append(in_own_process(__file__, str(size)))
        print(f"Memory for {size} pages: {rises[-1]:.0f} MB above the loaded encoder", flush=True)
    results["mb"] = dict(zip(sizes, rises, strict=True))
    print(json.dumps(results))
    return int(counted["first run"] != counted["pages"] or counted["second run"] != 0)


if __name__ == "__main__":
    sys.exit(main())

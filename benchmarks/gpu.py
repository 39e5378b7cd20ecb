"""What one GPU does: encoder, encoding end to end, training steps, first token. Needs CUDA, torch and transformers.

    python benchmarks/gpu.py            # under eight minutes on an H100; every table as soon as it is made
    python benchmarks/gpu.py --small    # tiny shapes on any device: shows that the script runs, and nothing else

Runs from a checkout with torch 2.11 or newer, transformers and pydantic, and what these two need. Random weights of
the real shapes: DeepSeek-OCR's encoder, and Qwen3-8B in bfloat16. "Before" and "after" stand in one table, measured
in one run: pages as float32 pixels or as bits, SAM's layers and attention as transformers has them or ours, the
encoder as it is or compiled, padded rows or packed ones, sample by sample or by one kernel, layers compiled or not.
Times are medians after a warm-up, with the device's clock. A share of the peak is one of the matrix product that is
measured first. The first token's full text is read by the same language model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import torch
import transformers
from common.models import tiny_encoder
from common.texts import texts
from torch import nn
from transformers import AutoModelForCausalLM, Qwen3Config

from ocrmem.config import RenderSection
from ocrmem.encoder import attention
from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.attention import BlockedAttention, attend_fused, attend_in_blocks
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.feature_store import RowFormat
from ocrmem.encoder.feature_writer import FeatureWriter
from ocrmem.encoder.overlap import overlapped
from ocrmem.encoder.page_encoding import encode_packed, encode_pages, packed
from ocrmem.encoder.sam_layers import LayerInOrder, PatchesInOrder, keep_in_order
from ocrmem.families import Shape
from ocrmem.model import packing
from ocrmem.model.compiled_layers import compile_layers
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.planning.activations import Projection, activations
from ocrmem.planning.flops import flops
from ocrmem.planning.shapes import shape_of
from ocrmem.planning.workload import BatchShape
from ocrmem.rendering import Page, load_atlas, render_text
from ocrmem.rendering.page import pixel_batch

PLACEHOLDER, VISION, PAGE_TOKENS = 5, 1024, 256
PAGE_FLOPS = 1.14e12  # of DeepSeek-OCR's encoder for a page of 1024 px, counted on the meta device
CHARACTERS_A_TOKEN = 4.4
APART = "packed, sample by sample"  # without the kernel for samples of different lengths


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str = "cuda"
    page: int = 1024
    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    blocks: tuple[int, ...] = (32, 128, 512, 2048, 8192)
    batch: int = 16
    pages: int = 128
    matrix: int = 8192
    row: int = 4096
    answer: int = 256
    prompts: tuple[int, ...] = (4096, 8192, 16384, 32768)
    repeats: int = 4

    @property
    def is_small(self) -> bool:
        return self.page < 1024


SMALL = Scale("cpu", 256, (1, 2), (1, 512), 2, 6, 256, 96, 8, (64, 128), 1)
CLOCK = {"cuda": torch.cuda.synchronize, "cpu": lambda: None}


def seconds_of(work: Callable[[], object], scale: Scale) -> float:
    """The median of a few runs after one that warms up."""
    found = []
    for number in range(scale.repeats + 1):
        CLOCK[scale.device]()
        start = time.perf_counter()
        work()
        CLOCK[scale.device]()
        if number:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def peaks(scale: Scale) -> str:
    """Most GB of tensors since the last call, what the allocator reserved, and what the device has in use beside it."""
    if scale.device != "cuda":
        return "- | - | -"
    free, total = torch.cuda.mem_get_info()
    used = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
    beside = total - free - torch.cuda.memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return f"{used[0] / 1e9:.1f} | {used[1] / 1e9:.1f} | {beside / 1e9:.1f}"


def table(title: str, columns: str) -> None:
    names = columns.split(", ")
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{' --- |' * len(names)}", flush=True)


def line(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def measured_peak(scale: Scale) -> float:
    """Operations a second of a bfloat16 product."""
    left = torch.randn(scale.matrix, scale.matrix, device=scale.device, dtype=torch.bfloat16)
    return 2 * scale.matrix**3 / seconds_of(lambda: left @ left, scale)


def drawn(characters: int, scale: Scale) -> list[Page]:
    """English prose on pages."""
    settings = RenderSection(page_size=scale.page, token_size=32 if scale.is_small else 64, max_pages=1000)
    return render_text(texts(characters)[0].content, settings, load_atlas()).pages


def enough_pages(scale: Scale) -> list[Page]:
    found = drawn(2000 if scale.is_small else 8_000 * scale.pages, scale)
    return (found * scale.pages)[: scale.pages]


def make_encoder(scale: Scale) -> DeepEncoder:
    torch.manual_seed(0)
    if scale.is_small:
        return tiny_encoder(scale.page, 32).to(scale.device)
    with torch.device(scale.device):
        return DeepEncoder(deepseek_ocr_config()).to(torch.bfloat16)


def encoder_table(encoder: DeepEncoder, pages: list[Page], peak: float, scale: Scale) -> None:
    """Pages a second of the encoder alone, and how far a compiled one is from it."""
    table(
        "Encoder, from pixels on the device to features",
        "way, batch, pages/s, operations / peak, GB of tensors, GB reserved, GB beside, first call s, off by",
    )
    bits = packed(encoder, pages[: max(*scale.batches, scale.batch)]).to(scale.device)
    exact = encode_packed(encoder, bits[: scale.batch]).float()
    peaks(scale)

    def row(way: str, batch: int, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        part = bits[:batch]
        start = time.perf_counter()
        found = encode_packed(encoder, part, forward)
        CLOCK[scale.device]()
        first = time.perf_counter() - start
        rate = batch / seconds_of(lambda: encode_packed(encoder, part, forward), scale)
        off = f"{float((found.float() - exact).norm() / exact.norm()):.1e}" if batch == scale.batch else ""
        line(way, str(batch), f"{rate:.0f}", f"{rate * PAGE_FLOPS / peak:.2f}", peaks(scale), f"{first:.1f}", off)

    with as_transformers(encoder, LayerInOrder, PatchesInOrder):
        row("before: layers that copy", scale.batch, encoder)
        with as_transformers(encoder, BlockedAttention):
            row("transformers' own", min(8, scale.batch), encoder)
    for megabytes in scale.blocks:
        with patch.object(attention, "_GPU_BYTES", megabytes << 20):
            row(f"plain, bias in blocks of {megabytes} MB", scale.batch, encoder)
    for batch in scale.batches:
        row("plain", batch, encoder)
    row("compiled", scale.batch, torch.compile(encoder, dynamic=False) if scale.device == "cuda" else encoder)
    torch.compiler.reset()
    attend_fused(encoder)
    row("fused kernel alone", scale.batch, encoder)
    row("fused", scale.batch, torch.compile(encoder, dynamic=False) if scale.device == "cuda" else encoder)
    attend_in_blocks(encoder)


@contextmanager
def as_transformers(encoder: DeepEncoder, *kinds: type[nn.Module]) -> Iterator[None]:
    """Let transformers' own modules stand where ours of these kinds do."""
    for module in encoder.modules():
        if type(module) in kinds:
            module.__class__ = type(module).__bases__[0]
    try:
        yield
    finally:
        keep_in_order(encoder)
        attend_in_blocks(encoder)


def encode_table(encoder: DeepEncoder, pages: list[Page], scale: Scale) -> None:
    """From pages to a feature store on disk: one thing after the other with pixels, and as `encode` does it."""
    table("`encode`, from pages in memory to the store", "way, pages, pages/s")
    batches = [pages[at : at + scale.batch] for at in range(0, len(pages), scale.batch)]
    tokens = encoder.tokens_for(scale.page)
    dtype = str(encoder.dtype).removeprefix("torch.")
    format_ = RowFormat("0" * 64, "sum", dtype, dtype, scale.page, tokens, encoder.feature_size)

    def before(writer: FeatureWriter) -> None:
        for number, batch in enumerate(batches):
            with torch.no_grad():
                features = encoder(torch.from_numpy(pixel_batch(batch)).to(scale.device))
            writer.append(names(number, batch), features)

    def after(writer: FeatureWriter) -> None:
        overlapped(
            enumerate(batches),
            lambda one: (names(*one), packed(encoder, one[1])),
            lambda one: (one[0], encode_packed(encoder, one[1])),
            lambda one: writer.append(*one) is None,
        )

    def names(number: int, batch: list[Page]) -> list[str]:
        return [f"{number * scale.batch + place:064x}" for place in range(len(batch))]

    for way, work in (("float32 pixels, one after the other", before), ("bits, overlapped", after)):
        found = []
        for _ in range(2):  # the first one warms up
            with tempfile.TemporaryDirectory() as directory, FeatureWriter(Path(directory), format_) as writer:
                start = time.perf_counter()
                work(writer)
                found.append(time.perf_counter() - start)
        line(way, str(len(pages)), f"{len(pages) / found[-1]:.0f}")


def make_language(scale: Scale) -> MEMModel:
    hidden, inner, layers, heads, vocabulary = (64, 96, 2, 4, 512) if scale.is_small else (4096, 12288, 36, 32, 151_936)
    config = Qwen3Config(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        max_position_embeddings=40_960,
        tie_word_embeddings=False,
    )
    with torch.device(scale.device):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    adapter = MEMConfig(
        base_model_name="benchmark",
        ocr_model_name="benchmark",
        vision_embedding_size=VISION,
        context_threshold=8,
        max_seq_length=max(scale.prompts),
        placeholder_token_id=PLACEHOLDER,
        page_size=scale.page,
        token_size=64,
        line_height=16,
    )
    packing.attend_within_samples(base)
    return MEMModel(adapter, base).to(scale.device).train()


def batch_of(lengths: list[int], packed: bool, memory: int, scale: Scale) -> dict[str, torch.Tensor]:
    """Samples of these lengths, each with so much memory at its beginning and the answer at its end."""
    source = torch.Generator().manual_seed(0)
    ids = [torch.randint(6, 500, (length,), generator=source) for length in lengths]
    labels = []
    for row in ids:
        row[1 : 1 + memory] = PLACEHOLDER
        labels.append(torch.full_like(row, -100))
        labels[-1][-scale.answer :] = row[-scale.answer :]
    features = torch.randn(memory * len(lengths), VISION, generator=source)
    if packed:
        batch = {"input_ids": torch.cat(ids)[None], "labels": torch.cat(labels)[None]}
        batch["sample_lengths"] = torch.tensor(lengths)
    else:
        pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
        mask = pad([torch.ones_like(row) for row in ids])
        batch = {"input_ids": pad(ids), "labels": pad(labels, padding_value=-100), "attention_mask": mask}
    return {name: value.to(scale.device) for name, value in (batch | {"memory_features": features}).items()}


def training_rows(scale: Scale) -> list[tuple[list[int], str, bool]]:
    """Lengths of a batch's samples, how they are laid, and whether activations are computed again."""
    row, mixed = scale.row, [scale.row * share // 8 for share in (4, 3, 2, 1)]
    return [
        ([row, row], "padded", False),
        ([row, row - 5], "padded", False),
        ([row, row - 5], APART, False),
        ([row, row - 5], "packed", False),
        ([row // 4] * 8, "padded", False),
        ([row // 4] * 8, APART, False),
        ([row // 4] * 8, "packed", False),
        (mixed, "padded", False),
        (mixed, APART, False),
        (mixed, "packed", False),
        ([row] * 4, "padded", True),
        ([row] * 4, "packed", True),
    ]


def training_table(
    title: str, model: MEMModel, peak: float, scale: Scale, rows: Sequence[tuple[list[int], str, bool]]
) -> None:
    """Steps of the projector; padded positions are no tokens."""
    table(
        title,
        "lengths, way, tokens/s, operations / peak, GB of tensors, GB reserved, GB beside, GB planned, "
        "loss, first step s",
    )
    by_kernel = packing.has_varlen_kernel
    shape, proj = shape_of(model.base_llm_model.config), Projection(VISION, model.proj.fc1.out_features, False)
    optimizer = torch.optim.AdamW(model.proj.parameters(), lr=0.0)  # a whole step, after which losses still compare
    for lengths, way, checkpointing in rows:
        (model.activation_checkpointing_enable if checkpointing else model.activation_checkpointing_disable)()
        memory = min(PAGE_TOKENS * 8, min(lengths) // 2)
        in_one_row = way != "padded"
        batch = batch_of(lengths, in_one_row, memory, scale)
        peaks(scale)
        losses: list[float] = []

        def step(batch: dict[str, torch.Tensor] = batch, losses: list[float] = losses) -> None:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())

        with patch.object(packing, "has_varlen_kernel", (lambda query: False) if way == APART else by_kernel):
            start = time.perf_counter()
            step()
            first = time.perf_counter() - start
            taken = seconds_of(step, scale)
        planned = planned_batch(lengths, in_one_row, memory, scale)
        work = flops(shape, proj, planned, checkpointing=checkpointing).executed
        need = planned_bytes(model, shape, proj, planned, checkpointing)
        named = f"{len(lengths)} x {lengths[0]}" if len(set(lengths)) == 1 else ", ".join(map(str, lengths))
        line(
            named,
            way + (", checkpointing" if checkpointing else ""),
            f"{sum(lengths) / taken:,.0f}",
            f"{work / taken / peak:.2f}",
            peaks(scale),
            f"{need / 1e9:.1f}",
            f"{losses[0]:.5f}",
            f"{first:.1f}",
        )
    model.activation_checkpointing_disable()


def planned_batch(lengths: list[int], packed: bool, memory: int, scale: Scale) -> BatchShape:
    """The batch as the plan's arithmetic takes it."""
    count = len(lengths)
    taken = lengths if packed else [max(lengths)] * count
    square = sum(length**2 for length in taken) / count
    padded = not packed and len(set(lengths)) > 1
    return BatchShape(count, sum(taken) / count, square, count * memory, count * scale.answer, padded)


def planned_bytes(model: MEMModel, shape: Shape, proj: Projection, batch: BatchShape, checkpointing: bool) -> float:
    """Tensors alone: weights, three more of proj in float32, activations and the peak of backward."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    state = 3 * sum(p.numel() * p.element_size() for p in model.proj.parameters())
    made = activations(shape, proj, batch, 2, checkpointing=checkpointing)
    return weights + state + made.kept + made.at_peak


def first_token_table(model: MEMModel, encoder: DeepEncoder, scale: Scale) -> None:
    """From text to the first token: drawn, encoded and read, or read as it is."""
    table("First token, ms", "text tokens, pages, memory tokens, full text, draw, encode, read, times, features kept")
    model.eval()

    def read(tokens: int, memory: torch.Tensor | None) -> None:
        ids = torch.randint(6, 500, (1, tokens), device=scale.device)
        source = {}
        if memory is not None:
            ids[0, : len(memory)] = PLACEHOLDER
            source["memory_features"] = memory
        with torch.no_grad():
            model(input_ids=ids, logits_to_keep=1, **source)

    for tokens in scale.prompts:
        characters = round(tokens * CHARACTERS_A_TOKEN)
        pages = drawn(characters, scale)

        def encode(pages: list[Page] = pages) -> torch.Tensor:
            return encode_pages(encoder, pages)

        masks = torch.cat([torch.from_numpy(page.ink_mask(encoder.token_size)) for page in pages])
        seen = encode().flatten(0, 1)[masks.to(scale.device)]
        memory = torch.zeros(len(seen), VISION, device=scale.device, dtype=torch.bfloat16)
        memory[:, : seen.shape[1]] = seen
        whole = seconds_of(partial(read, tokens, None), scale)
        parts = [
            seconds_of(partial(drawn, characters, scale), scale),
            seconds_of(encode, scale),
            seconds_of(partial(read, len(memory) + 32, memory), scale),
        ]
        counts = (f"{tokens:,}", str(len(pages)), f"{len(memory):,}")
        times = (f"{whole / sum(parts):.1f}", f"{whole / parts[2]:.1f}")
        line(*counts, f"{whole * 1e3:,.0f}", *(f"{part * 1e3:.0f}" for part in parts), *times)


def sections(scale: Scale) -> Iterator[str]:
    """Make one table after the other; yields what was done."""
    peak = measured_peak(scale)
    print(f"bfloat16 product of {scale.matrix} x {scale.matrix}: {peak / 1e12:.3g} TFLOP/s", flush=True)
    encoder, pages = make_encoder(scale), enough_pages(scale)
    yield "made encoder and pages"
    encode_table(encoder, pages, scale)
    yield "encode"
    encoder_table(encoder, pages, peak, scale)
    yield "encoder"
    model = make_language(scale)
    yield "made the language model"
    training_table("Training step", model, peak, scale, training_rows(scale))
    yield "training"
    first_token_table(model, encoder, scale)
    yield "first token"
    on_gpu = scale.device == "cuda"
    compile_layers(model.base_llm_model, on_gpu=on_gpu, backend="inductor" if on_gpu else "eager")
    rows = [row for row in training_rows(scale) if row[1] == "packed"]
    training_table("Training step with compiled layers", model.train(), peak, scale, rows)
    yield "compiled layers"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes: shows that the script runs")
    parser.add_argument("--only", type=int, metavar="N", help="stop after so many sections (%(default)s: all)")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        print("there is no CUDA device here")
        return 2
    scale = SMALL if arguments.small else Scale()
    if arguments.small and torch.cuda.is_available():
        scale = replace(SMALL, device="cuda")
    name = torch.cuda.get_device_name() if scale.device == "cuda" else "CPU: no figure here means anything"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    started = time.monotonic()
    for done in islice(sections(scale), arguments.only):
        print(f"\n({done}: {time.monotonic() - started:.0f} s since the start)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

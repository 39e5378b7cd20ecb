"""Samples per second and peak memory of a training step, against the ancestor's way, part by part.

    python benchmarks/train_step.py [--quick] [--target 10]

The other way is OCR-MEM's: inside the step each history is drawn, each page goes through the encoder by itself,
every token of it becomes memory, rows are padded by hand, and the language model makes logits for every position.
It is written here from its description, and is spared its own slow drawing: it gets ocrmem's pages, so that model,
samples and loss are the same (the losses are compared). On top of it ocrmem's parts are switched on one after the
other: features from the store, logits at supervised positions only, no blank patches, batches of like length.

Two settings, both with the medium encoder (15 M parameters) and random weights: "tiny preset" is params.yaml with
its language model; "real vocabulary" has samples/chat on pages of 512 px and a small Qwen3 with 151,936 tokens. A step
is collating, forward, backward and AdamW on proj. Times are processor seconds of one thread; the rows of a table are
run in turn on the same samples. Memory is the most that tensors made in the step with the longest row take together.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from common.inputs import CHAT, Inputs, chat_tokenizer, tiny_config
from common.memory import PeakTensors, mb
from common.models import MEDIUM_WIDTH, medium_encoder, parameters, small_qwen
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3ForCausalLM

from ocrmem.config import RunConfig
from ocrmem.dataset.schema import Sample
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.facts import tokens_per_page
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.model.tiny.language_model import tiny_language_model_config
from ocrmem.rendering import load_atlas, render_text, transcript
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer
from ocrmem.training.curriculum import GroupedSampler, RunSampler

Batch = Sequence[Sample]


class Store:
    """Stands for dataset/ and features/: masks and features of pages, in memory.

    Features of pages that the first row does not encode are random numbers, which cost the same to compute with.
    """

    def __init__(self, inputs: Inputs, model: MEMModel, encoded: Batch) -> None:
        self.drop_blank = False
        self.features_of: dict[str, np.ndarray] = {}
        token = inputs.maker.config.render.token_size
        self._ink = {name: page.ink_mask(token) for name, page in inputs.pages.items()}
        known = {name for sample in encoded for name in sample.pages}
        generator = np.random.default_rng(0)
        for name, page in inputs.pages.items():
            if name in known:
                self.features_of[name] = encode_pages(model.ocr_embed, [page])[0].numpy()
            else:
                shape = (len(self._ink[name]), model.config.vision_embedding_size)
                self.features_of[name] = generator.standard_normal(shape, np.float32)

    def dropping_blanks(self) -> Store:
        """The same with tokens of blank patches left out."""
        other = copy.copy(self)
        other.drop_blank = True
        return other

    def kept(self, name: str) -> np.ndarray:
        return self._ink[name] if self.drop_blank else np.ones_like(self._ink[name])

    def gather(self, pages: Sequence[str], kept: Sequence[np.ndarray]) -> torch.Tensor:
        rows = [self.features_of[name][mask] for name, mask in zip(pages, kept, strict=True)]
        return torch.from_numpy(np.concatenate(rows))


class ReferenceWay:
    """The step as OCR-MEM describes it; with ``store`` its features are looked up instead of made."""

    def __init__(self, inputs: Inputs, model: MEMModel, store: Store | None = None) -> None:
        self.maker, self.model, self.store = inputs.maker, model, store

    def __call__(self, samples: Batch) -> torch.Tensor:
        rows = [self._row(sample) for sample in samples]
        length = max(len(labels) for _, labels in rows)
        embeddings, masks, labels = [], [], []
        for row, row_labels in rows:
            missing = length - len(row_labels)
            embeddings.append(torch.cat([row, torch.zeros(missing, row.shape[1])]))
            masks.append(torch.tensor([1] * len(row_labels) + [0] * missing))
            labels.append(torch.tensor(row_labels + [-100] * missing))
        base: PreTrainedModel = self.model.base_llm_model
        logits = base(inputs_embeds=torch.stack(embeddings), attention_mask=torch.stack(masks)).logits
        targets = torch.stack(labels)[:, 1:]
        return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=-100)

    def _row(self, sample: Sample) -> tuple[torch.Tensor, list[int]]:
        features = self._features(sample)
        sequence = self.maker.builder.build(
            sample.prompt,
            sample.answer,
            memory_tokens=0 if features is None else len(features),
            history=() if sample.has_memory else sample.history,
        )
        embeddings = self.model.get_input_embeddings()(torch.tensor(sequence.input_ids))
        if features is not None:
            at = sequence.input_ids.index(self.model.config.placeholder_token_id)
            memory = self.model.proj(features)
            embeddings = torch.cat([embeddings[:at], memory, embeddings[at + len(memory) :]])
        return embeddings, sequence.labels

    def _features(self, sample: Sample) -> torch.Tensor | None:
        if not sample.has_memory:
            return None
        if self.store is not None:
            return torch.from_numpy(np.concatenate([self.store.features_of[name] for name in sample.pages]))
        settings = self.maker.config.render
        pages = render_text(transcript(sample.history, settings.labels), settings, load_atlas(settings.atlas)).pages
        with torch.no_grad():
            found = [
                self.model.ocr_embed(torch.from_numpy(page.pixels()[None]))[0] for page in pages[-settings.max_pages :]
            ]
        return torch.cat(found)


class OurWay:
    """The library's own step on stored features."""

    def __init__(self, inputs: Inputs, model: MEMModel, store: Store) -> None:
        self.collate = MemoryCollator(inputs.maker.builder, store, store)  # type: ignore[arg-type]
        self.model = model

    def __call__(self, samples: Batch) -> torch.Tensor:
        return self.model(**self.collate(samples)).loss


@dataclass
class Row:
    """A line of the table: a way to the loss, and the batches it runs on."""

    name: str
    loss: Callable[[Batch], torch.Tensor]
    batches: list[Batch]
    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def per_sample(self) -> float:
        return statistics.mean(self.seconds) / len(self.batches[0])


@dataclass(frozen=True)
class Setting:
    """What a table is measured on."""

    name: str
    config: RunConfig
    tokenizer: PreTrainedTokenizerBase
    base: Qwen3ForCausalLM
    batch: int
    samples: int  # one epoch of so many, drawn once: every row sees the same ones
    reference_steps: int  # of the first row, the slow one


def tiny_preset(quick: bool) -> Setting:
    config = tiny_config()
    torch.manual_seed(0)
    base = Qwen3ForCausalLM(tiny_language_model_config())
    return Setting("tiny preset", config, build_tiny_tokenizer(), base, 16, 128 if quick else 512, 1 if quick else 2)


def real_vocabulary(quick: bool) -> Setting:
    config = tiny_config(CHAT)
    model = config.model.model_copy(update={"context_threshold": 64, "max_seq_length": 4096})
    sizes = {"page_size": 512, "token_size": 64, "line_height": 16, "max_pages": 8}
    render = config.render.model_copy(update=sizes)
    config = config.model_copy(update={"model": model, "render": render})
    base = small_qwen(151_936, 4096)
    return Setting("real vocabulary", config, chat_tokenizer(), base, 2, 8 if quick else 12, 2 if quick else 6)


def table(setting: Setting, target: float) -> dict[str, object]:
    """Measure one setting and print its table."""
    inputs = Inputs.of(setting.config, setting.tokenizer)
    encoder = medium_encoder(setting.config.render.page_size, setting.config.render.token_size)
    adapter = MEMConfig.from_run_config(setting.config, placeholder_token_id=inputs.maker.builder.memory.placeholder)
    adapter.ocr_model_name, adapter.vision_embedding_size = "medium", 2 * MEDIUM_WIDTH
    model = MEMModel(adapter, setting.base, encoder).train()
    chosen = random.Random(0).sample(inputs.samples, setting.samples)
    steps = setting.samples // setting.batch
    plain, grouped = (order(chosen, setting.batch, steps, group) for group in (False, True))
    unblanked = [with_blanks(batch, setting.config) for batch in plain]
    reference = unblanked[: setting.reference_steps]
    store = Store(inputs, model, [sample for batch in reference for sample in batch])
    inked = store.dropping_blanks()
    rows = [
        Row("the ancestor's way", ReferenceWay(inputs, model), reference),
        Row("+ feature store", ReferenceWay(inputs, model, store), unblanked),
        Row("+ supervised logits only", OurWay(inputs, model, store), unblanked),
        Row("+ blank patches dropped", OurWay(inputs, model, inked), plain),
        Row("+ batches of like length", OurWay(inputs, model, inked), grouped),
    ]
    compare_losses(rows[:3])
    measure(rows, model)
    print_table(setting, rows, encoder)
    shares = {size: [padding(inputs.samples, size, group) for group in (False, True)] for size in (2, 4, 8, 16, 64)}
    print(f"padding, {len(inputs.samples)} samples: shuffled -> of like length")
    print("  " + "; ".join(f"batch {size}: {was:.1%} -> {now:.1%}" for size, (was, now) in shares.items()))
    ratio = rows[0].per_sample / rows[-1].per_sample
    return {
        "setting": setting.name,
        "samples_per_second": {row.name: round(1 / row.per_sample, 2) for row in rows},
        "peak_bytes": {row.name: row.peak for row in rows},
        "padding": {size: [round(share, 4) for share in found] for size, found in shares.items()},
        "ratio": round(ratio, 1),
        "target_met": ratio >= target,
    }


def with_blanks(batch: Batch, config: RunConfig) -> list[Sample]:
    """The same samples with every token of their pages as memory."""
    tokens = tokens_per_page(config.render.page_size, config.render.token_size)
    return [replace(sample, memory_tokens=tokens * len(sample.pages)) for sample in batch]


def order(samples: Batch, batch: int, steps: int, grouped: bool) -> list[Batch]:
    """The first steps of a run, in the trainer's own order."""
    run = ([0] * len(samples), batch, steps, 0.0, 0)
    lengths = [sample.sequence_tokens for sample in samples]
    sampler = GroupedSampler(lengths, *run) if grouped else RunSampler(*run)
    return [[samples[index] for index in sampler.step_indices(step)] for step in range(steps)]


def padding(samples: Batch, batch: int, grouped: bool) -> float:
    """The share of all positions that is padding, over four epochs and more."""
    found = order(samples, batch, max(100, 4 * len(samples) // batch), grouped)
    lengths = [[sample.sequence_tokens for sample in batch] for batch in found]
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


def compare_losses(rows: Sequence[Row]) -> None:
    """Stop unless all rows give the same loss on the first batch."""
    losses = [float(row.loss(rows[0].batches[0]).detach()) for row in rows]
    if max(losses) - min(losses) > 1e-4 * abs(losses[0]):
        raise SystemExit(f"The ways do not compute the same loss: {losses}")


def measure(rows: Sequence[Row], model: MEMModel) -> None:
    """Time the rows' batches in turn; memory in a first, unmeasured step on each row's largest batch."""
    optimizer = torch.optim.AdamW(model.proj.parameters(), lr=1e-6)

    def step(row: Row, batch: Batch) -> None:
        row.loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    for row in rows:
        with PeakTensors() as memory:
            step(row, max(row.batches, key=lambda batch: max(sample.sequence_tokens for sample in batch)))
        row.peak = memory.peak
    for number in range(max(len(row.batches) for row in rows)):
        for row in rows:
            if number < len(row.batches):
                start = time.process_time()
                step(row, row.batches[number])
                row.seconds.append(time.process_time() - start)


def print_table(setting: Setting, rows: Sequence[Row], encoder: torch.nn.Module) -> None:
    config = setting.base.config
    print(
        f"\n{setting.name}: encoder {parameters(encoder)}, language model {parameters(setting.base)} "
        f"(vocabulary {config.vocab_size}), pages of {setting.config.render.page_size} px, batch {setting.batch}"
    )
    print(f"{'':26}{'samples/s':>11}{'ms/sample':>11}{'times':>8}{'share':>8}{'peak MB':>10}")
    saved = rows[0].per_sample - rows[-1].per_sample
    before = rows[0].per_sample
    for row in rows:
        now = row.per_sample
        share = f"{100 * (before - now) / saved:7.1f}%" if row is not rows[0] else f"{'':8}"
        print(f"{row.name:26}{1 / now:11.2f}{1e3 * now:11.2f}{before / now:8.2f}{share}{mb(row.peak):>10}", flush=True)
        before = now
    print(f"all parts together: {rows[0].per_sample / rows[-1].per_sample:.1f} times the samples per second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--target", type=float, default=10.0, help="times that the tiny preset must reach, else exit 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = [table(setting(arguments.quick), arguments.target) for setting in (tiny_preset, real_vocabulary)]
    print(json.dumps(results))
    if not results[0]["target_met"]:
        print(f"{arguments.target:g} times the ancestor's samples per second were not shown.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

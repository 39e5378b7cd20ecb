"""Does the embedded default learn memory on any seed? Bases on several seeds, proj on several seeds of each.

    python scripts/tiny_seeds.py --base-seeds 0 1 2 3 4 --proj-seeds 0 1 2 --work /tmp/tiny-seeds

Everything but the loop is the product's: base, samples, pages, sequences, curriculum, MEMModel. The loop does
what the trainer does (AdamW, warm-up and cosine, clipping) without its checkpoints and logs. Recall is exact:
an answer counts when every token of it and its end token come first. "random encoder" is the trained proj behind an
untrained encoder; --random-encoder also trains a proj behind it. Needs no network; minutes a seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import get_cosine_schedule_with_warmup

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation
from ocrmem.conversations.parse import parse_line
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.schema import PageRow, Sample
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.page_encoding import encode_pages
from ocrmem.model.collator import pad_sequences
from ocrmem.model.modeling import MEMModel
from ocrmem.model.tiny.build import build_tiny_base
from ocrmem.model.tiny.encoder import random_tiny_encoder
from ocrmem.rendering import Page
from ocrmem.synthetic.tiny import tiny_conversations
from ocrmem.tokens import load_tokenizer

RANDOM_SEED = 12345  # of the untrained encoder
SETTINGS: dict[str, Any] = {
    "model": {
        "features": "concat",
        "vision_embedding_size": 128,
        "context_threshold": 8,
        "max_seq_length": 256,
        "projector_hidden_size": 256,
        "projector_norm": True,
        "device": "cpu",
    },
    "render": {
        "page_size": 256,
        "token_size": 32,
        "line_height": 32,
        "max_pages": 1,
        "labels": {"system": "sys ", "user": "usr ", "assistant": "bot ", "tool": "tol "},
    },
}
COLUMNS = ("right", "shuffled", "none", "counterfactual", "random encoder", "untrained proj")


@dataclass
class Split:
    """Samples and, beside each, its memory [n, d]."""

    samples: list[Sample]
    memory: list[torch.Tensor]

    def shuffled(self) -> Split:
        """Every sample with the memory of another conversation."""
        return Split(self.samples, self.memory[7:] + self.memory[:7])

    def blank(self) -> Split:
        return Split(
            [replace(s, pages=(), history=(), memory_tokens=0) for s in self.samples],
            [memory[:0] for memory in self.memory],
        )


class Bench:
    """One base, and any number of projectors on it."""

    def __init__(self, config: RunConfig, arguments: argparse.Namespace, encoder: DeepEncoder) -> None:
        self.config, self.arguments, self.encoder = config, arguments, encoder
        self.maker = SampleMaker(config, load_tokenizer(config))
        count, held_out = arguments.conversations, arguments.eval_conversations
        self.train = self.split("train", list(tiny_conversations(count, 0)))
        self.eval = self.split("eval", list(tiny_conversations(held_out, 0, held_out=True)))
        other = list(tiny_conversations(held_out, 0, held_out=True, counterfactual=True))
        self.counterfactual = self.split("counterfactual", other)
        self.encoder = random_tiny_encoder(RANDOM_SEED).eval()
        self.unread = self.split("eval", list(tiny_conversations(held_out, 0, held_out=True)))

    def split(self, name: Any, conversations: Sequence[dict[str, Any]]) -> Split:
        samples: list[Sample] = []
        rows: dict[str, PageRow] = {}
        for conversation in conversations:
            parsed = parse_line(json.dumps(conversation).encode(), name)
            made = self.maker.make(Conversation(conversation["id"], parsed.messages, name, name))
            samples += made.samples
            rows |= {page.hash: page for page in made.pages}
        pages = [Page.from_bytes(row.bits, row.size, row.atlas_version) for row in rows.values()]
        features = dict(zip(rows, encode_pages(self.encoder, pages), strict=True))
        kept = {page.hash: torch.from_numpy(page.ink_mask(self.config.render.token_size).reshape(-1)) for page in pages}
        memory = [torch.cat([features[page][kept[page]] for page in sample.pages]) for sample in samples]
        return Split(samples, memory)

    def model(self, seed: int) -> MEMModel:
        train = self.config.train.model_copy(update={"seed": seed})
        return MEMModel.from_run_config(self.config.model_copy(update={"train": train}), with_encoder=False)

    def batch(self, split: Split, places: Sequence[int]) -> dict[str, torch.Tensor]:
        sequences = [
            self.maker.builder.build(sample.prompt, sample.answer, memory_tokens=len(split.memory[place]))
            for place, sample in ((place, split.samples[place]) for place in places)
        ]
        batch = pad_sequences(sequences, 1, left=False)
        memory = torch.cat([split.memory[place] for place in places])
        return batch | ({"memory_features": memory} if len(memory) else {})

    @torch.no_grad()
    def recall(self, model: MEMModel, split: Split) -> float:
        right = 0
        for start in range(0, len(split.samples), 50):
            batch = self.batch(split, range(start, min(start + 50, len(split.samples))))
            labels = batch.pop("labels")[:, 1:]
            best = model(**batch).logits[:, :-1].argmax(-1)
            right += int(((best == labels) | (labels < 0)).all(1).sum())
        return right / len(split.samples)

    def fit(self, seed: int) -> MEMModel:
        from ocrmem.training.curriculum import RunSampler

        arguments, model = self.arguments, self.model(seed)
        steps, size = arguments.steps, arguments.batch_size
        optimizer = torch.optim.AdamW(model.proj.parameters(), lr=arguments.learning_rate, weight_decay=0.01)
        schedule = get_cosine_schedule_with_warmup(optimizer, arguments.warmup, steps)
        lengths = [len(memory) for memory in self.train.memory]
        sampler = RunSampler(lengths, size, steps, arguments.curriculum, seed)
        for step in range(steps):
            loss = model(**self.batch(self.train, sampler.step_indices(step))).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.proj.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if (step + 1) % 100 == 0:
                print(
                    f"    step {step + 1} loss {loss.item():.3f} right {self.recall(model, self.eval):.3f}",
                    flush=True,
                )
        return model

    def row(self, seed: int) -> list[float]:
        untrained = self.recall(self.model(seed), self.eval)
        model = self.fit(seed)
        splits = (self.eval, self.eval.shuffled(), self.eval.blank(), self.counterfactual, self.unread)
        return [*(self.recall(model, split) for split in splits), untrained]


def main() -> int:
    arguments = parsed_arguments()
    torch.set_num_threads(arguments.threads)
    lines = [
        "| base seed | attempts | LM steps | text recall (turns, page) | characters | base s | proj seed | "
        + " | ".join(COLUMNS)
        + " | proj s |",
        "| --- " * (len(COLUMNS) + 8) + "|",
    ]
    for base_seed in arguments.base_seeds:
        models = arguments.work / f"base-{base_seed}"
        base = {"seed": base_seed, "encoder_steps": arguments.encoder_steps, "lm_steps": arguments.lm_steps}
        config = RunConfig.from_dict(SETTINGS | {"base": base, "paths": {"models": str(models)}})
        report = build_tiny_base(config)
        language, reader = report["language_model"], report["encoder"]
        recall = language["text_recall"]
        told = (
            f"| {base_seed} | {len(language['attempts'])} | {language['attempts'][-1]['steps']} | "
            f"{recall['turns']:.3f}, {recall['page']:.3f} | {reader['character_accuracy']:.3f} | "
            f"{reader['seconds'] + language['seconds']:.0f} |"
        )
        print(told, flush=True)
        if not arguments.proj_seeds:
            lines.append(told + " - |" * (len(COLUMNS) + 2))
        bench = None
        for proj_seed in arguments.proj_seeds:
            bench = bench or Bench(
                config, arguments, DeepEncoder.from_pretrained(config.paths.encoder, features="concat")
            )
            lines.append(told + measured(bench, proj_seed, str(proj_seed)))
            print(lines[-1], flush=True)
        if arguments.random_encoder and bench:
            control = Bench(config, arguments, random_tiny_encoder(RANDOM_SEED).eval())
            lines.append(told + measured(control, 0, "0, trained on a random encoder"))
            print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    if arguments.output:
        arguments.output.write_text(table, encoding="utf-8")
    print(table)
    return 0


def measured(bench: Bench, seed: int, name: str) -> str:
    started = time.monotonic()
    row = bench.row(seed)
    cells = [name, *(f"{np.round(value, 3):.3f}" for value in row), f"{time.monotonic() - started:.0f}"]
    return " " + " | ".join(cells) + " |"


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--proj-seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--random-encoder", action="store_true", help="also train proj on an untrained encoder")
    parser.add_argument("--work", type=Path, default=Path("tiny-seeds"), help="where bases are kept")
    parser.add_argument("--output", type=Path, help="write the table here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--encoder-steps", type=int, default=250)
    parser.add_argument("--lm-steps", type=int, default=1300)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=8e-3)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--curriculum", type=float, default=0.5)
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--eval-conversations", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

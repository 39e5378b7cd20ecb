"""Which recipe teaches proj, and on which seeds? The product's verbs, a run a row.

    python scripts/recipes.py tiny --recipes staged distil text --seeds 0 1 2
    python scripts/recipes.py english --data my-notes --models models --recipes staged-8 answer --seeds 0 1 2

A recipe changes the settings of params.yaml, or of configs/english.yaml. `random` has the pages read by an untrained
encoder, `text` by an ideal one, whose vision token is the mean of the base model's embeddings of the text under it.
What the work folder holds is not run again. Needs no network where the models are there; minutes a run, of English
half an hour on a CPU core.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

import ocrmem
from ocrmem.config import RunConfig
from ocrmem.conversations import SPLITS
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.encode import encode_dataset
from ocrmem.environment import missing_to_compile
from ocrmem.facts import MANIFEST
from ocrmem.model.modeling import MEMModel
from ocrmem.model.tiny.encoder import random_tiny_encoder
from ocrmem.objectives import Align, Material
from ocrmem.rendering import Page

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples" / "conversations"
RANDOM_SEED = 12345  # of the untrained encoder
TINY_ALIGN = {"objective": "align", "share": 0.65}
TINY_DISTIL = {"objective": "distil", "share": 0.35, "learning_rate": 0.004}
TINY: dict[str, dict[str, Any]] = {
    "staged": {},
    "distil": {"train.stages": [TINY_ALIGN, TINY_DISTIL]},
    "answer": {"train.stages": [], "train.max_steps": 210},  # the tokens of `staged` through the language model
    "answer-long": {"train.stages": [], "train.max_steps": 800},
    "random": {"train.stages": [], "train.max_steps": 800},
    "text": {},
}


def english(*stages: dict[str, Any], characters: int = 8) -> dict[str, Any]:
    """Return the settings of a recipe in English: stages, and characters a vision token."""
    every = {"train.optimizer": "muon", "train.learning_rate": 2e-3, "train.per_device_batch_size": 12}
    compiled = not torch.cuda.is_available() and not missing_to_compile(on_gpu=False)  # as in english.py
    every |= {"train.warmup_steps": 10, "train.compile_layers": compiled}
    every |= {"evaluate.max_samples": 100, "evaluate.max_new_tokens": 16}
    steps = sum(stage["steps"] for stage in stages)
    return every | {"train.stages": list(stages), "train.max_steps": steps, "render.line_height": 512 // characters}


ALIGN = {"objective": "align", "steps": 150, "per_device_batch_size": 32}
TRANSCRIBE = {"objective": "transcribe", "steps": 100}
ANSWER = {"objective": "answer", "steps": 200, "mix": {"answer": 1, "transcribe": 1}}
DISTIL = {"objective": "distil", "steps": 200, "mix": {"distil": 1, "transcribe": 1}}
ANSWER_ALONE = {"objective": "answer", "steps": 340}  # about the tokens of `staged` through the language model
STAGES = (ALIGN, TRANSCRIBE, ANSWER)
ENGLISH = {
    **{f"staged-{characters}": english(*STAGES, characters=characters) for characters in (8, 16, 32)},
    "answer": english(ANSWER_ALONE),
    "align": english(ALIGN),
    "align-answer": english(ALIGN, ANSWER_ALONE),
    "transcribe": english(ALIGN, TRANSCRIBE | {"steps": 300}),
    "distil": english(ALIGN, TRANSCRIBE, DISTIL),
    "adamw": english(ALIGN | {"learning_rate": 2e-3}, TRANSCRIBE, ANSWER)
    | {"train.optimizer": "adamw", "train.learning_rate": 8e-4},
    "text": english(*STAGES),
}
PRESETS = {"tiny": ("params.yaml", TINY), "english": ("configs/english.yaml", ENGLISH)}
STAND_INS = ("random", "text")  # recipes whose pages another encoder reads; the others share their features
VARIANTS = ("memory", "shuffled", "no_memory", "counterfactual", "untrained")
COLUMNS = ("recipe", "base seed", "seed", "ratio", "tokens", "last loss", *VARIANTS, "said", "loss", "another's loss")


class TextEncoder:
    """Stands in for an encoder: the features of a page are the embeddings of its text, in float32.

    A vision token's are the mean over the text tokens that end under it, the target of `align`, and then zeros up to
    ``model.vision_embedding_size``; those of a token without text are zeros.
    """

    features = "text"
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, config: RunConfig) -> None:
        self.token_size, self.feature_size = config.render.token_size, config.model.vision_embedding_size
        model = MEMModel.from_run_config(config, with_encoder=False)
        self._model = model.config.base_fingerprint
        table = model.get_input_embeddings().weight.detach().float()
        if table.shape[1] > self.feature_size:
            raise SystemExit(f"model.vision_embedding_size: the embeddings are wider. Set it to {table.shape[1]}")
        dataset, builder = MemoryDataset.open(config.paths.dataset), SequenceBuilder.of(config)
        self._pages: dict[str, torch.Tensor] = {}
        for split in SPLITS:
            samples = [sample for sample in dataset.samples(split) if sample.has_memory]
            if not samples:
                continue
            align = Align(Material(config, builder, dataset, None, dataset.samples(split)))
            for sample in samples:
                batch = align([sample])
                groups = batch["text_ids"].split(batch["text_lengths"].tolist())
                rows = torch.zeros(*batch["page_kept"].shape, self.feature_size)
                rows[batch["page_kept"]] = torch.stack(
                    [
                        torch.nn.functional.pad(table[ids].mean(0), (0, self.feature_size - table.shape[1]))
                        for ids in groups
                    ]
                )
                self._pages |= dict(zip(sample.pages, rows, strict=True))

    def weights_sha256(self) -> str:
        return str(self._model)

    def tokens_for(self, page_size: int) -> int:
        return (page_size // self.token_size) ** 2

    def packed(self, pages: list[Page]) -> torch.Tensor:
        return torch.stack([self._pages[page.hash] for page in pages])

    def pixels(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return batch


def run_of(
    work: Path, preset: str, recipe: str, base_seed: int, seed: int, data: Path = SAMPLES, models: Path | None = None
) -> RunConfig:
    """Return the settings of a run: those of the preset, the recipe's, and places below ``work``."""
    file, recipes = PRESETS[preset]
    changes = recipes[recipe]
    kind = f"-{changes['render.line_height']}" if "render.line_height" in changes else ""
    base = work / f"base-{base_seed}"
    own = base / f"{recipe}-{seed}"
    places = {"models": models or base / "models", "dataset": base / f"dataset{kind}"}
    places |= {"features": base / f"features{kind}{f'-{recipe}' if recipe in STAND_INS else ''}"}
    places |= {name: own / name for name in ("adapter", "checkpoints", "tracking")} | {"reports": own}
    settings = {f"paths.{name}": str(place) for name, place in places.items()}
    settings |= {"base.seed": base_seed, "train.seed": seed, "data.path": str(data), "tracking.wandb": "disabled"}
    return RunConfig.load(ROOT / file, settings | changes)


def measured(config: RunConfig, recipe: str) -> dict[str, Any]:
    """Run the verbs that are still to be run; return evaluation.json with what train.json has as ``train``."""
    if not (Path(config.paths.dataset) / MANIFEST).exists():
        ocrmem.base(config)
        ocrmem.render(config)
    if not (Path(config.paths.features) / MANIFEST).exists():
        makers = {"random": lambda: random_tiny_encoder(RANDOM_SEED).eval(), "text": lambda: TextEncoder(config)}
        encode_dataset(config, makers[recipe]() if recipe in makers else None)
    if not config.paths.report("train.json").exists():
        ocrmem.train(config, resume=True)
    if not config.paths.report("evaluation.json").exists():
        ocrmem.evaluate(config)
    trained, found = (
        json.loads(config.paths.report(name).read_text(encoding="utf-8")) for name in ("train.json", "evaluation.json")
    )
    return {**found, "train": trained}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--recipes", nargs="+", help="default: the preset's first")
    parser.add_argument("--base-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, default=SAMPLES, help="conversations; default: those of the repository")
    parser.add_argument("--models", type=Path, help="models that are there already")
    parser.add_argument("--work", type=Path, default=Path("recipes"), help="where everything is kept")
    arguments = parser.parse_args()
    known = PRESETS[arguments.preset][1]
    recipes = arguments.recipes or list(known)[:1]
    if unknown := set(recipes) - set(known):
        parser.error(f"--recipes: {', '.join(sorted(unknown))} unknown; there are {', '.join(known)}")
    print(f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|", sep="\n")
    for recipe in recipes:
        for base_seed in arguments.base_seeds:
            for seed in arguments.seeds:
                run = run_of(
                    arguments.work, arguments.preset, recipe, base_seed, seed, arguments.data, arguments.models
                )
                found = measured(run, recipe)
                cells = [recipe, base_seed, seed, f"{found['compression_ratio']:.2f}", found["train"]["tokens"]]
                cells += [f"{found['train']['loss']['last']:.4f}"]
                cells += [f"{found[name]['recall']:.3f}" if name in found else "-" for name in VARIANTS]
                memory, other = found["memory"], found["shuffled"]
                cells += [f"{memory['said']:.3f}", f"{memory['loss']:.3f}", f"{other['loss']:.3f}"]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

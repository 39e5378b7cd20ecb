"""Which recipe teaches proj on the embedded default, and on which seeds? The product's verbs, a run a row.

    python scripts/tiny_seeds.py --recipes staged distil text --base-seeds 0 --seeds 0 1 2 --work tiny-seeds

A recipe changes params.yaml. `random` has the pages read by an untrained encoder, `text` by an ideal one, whose vision
token is the mean of the base model's embeddings of the text under it. What the work folder holds is not run again.
Needs no network; minutes a run.
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
from ocrmem.facts import MANIFEST
from ocrmem.model.modeling import MEMModel
from ocrmem.model.tiny.encoder import random_tiny_encoder
from ocrmem.objectives import Align, Material
from ocrmem.rendering import Page

ROOT = Path(__file__).resolve().parent.parent
RANDOM_SEED = 12345  # of the untrained encoder
_ALIGN = {"objective": "align", "share": 0.65}
_DISTIL = {"objective": "distil", "share": 0.35, "learning_rate": 0.004}
RECIPES: dict[str, dict[str, Any]] = {
    "staged": {},
    "distil": {"train.stages": [_ALIGN, _DISTIL]},
    "answer": {"train.stages": [], "train.max_steps": 210},  # the tokens of `staged` through the language model
    "answer-long": {"train.stages": [], "train.max_steps": 800},
    "random": {"train.stages": [], "train.max_steps": 800},
    "text": {},
}
FEATURES = {"random": "features-random", "text": "features-text"}  # of these recipes; the others share `features`
VARIANTS = ("memory", "shuffled", "no_memory", "counterfactual", "untrained")


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


def run_of(work: Path, recipe: str, base_seed: int, seed: int) -> RunConfig:
    """Return the settings of a run: those of params.yaml, the recipe's, and places below ``work``."""
    base, own = work / f"base-{base_seed}", work / f"base-{base_seed}" / f"{recipe}-{seed}"
    places = {"models": base / "models", "dataset": base / "dataset"}
    places |= {"features": base / FEATURES.get(recipe, "features")}
    places |= {name: own / name for name in ("adapter", "checkpoints", "tracking")} | {"reports": own}
    changes = {f"paths.{name}": str(place) for name, place in places.items()}
    changes |= {"base.seed": base_seed, "train.seed": seed, "data.path": str(ROOT / "samples" / "conversations")}
    return RunConfig.load(ROOT / "params.yaml", changes | {"tracking.wandb": "disabled"} | RECIPES[recipe])


def measured(config: RunConfig, recipe: str) -> dict[str, Any]:
    """Run the verbs that are still to be run; return evaluation.json with what train.json has as ``train``."""
    if not (Path(config.paths.dataset) / MANIFEST).exists():
        ocrmem.base(config)
        ocrmem.render(config)
    if not (Path(config.paths.features) / MANIFEST).exists():
        makers = {"random": lambda: random_tiny_encoder(RANDOM_SEED).eval(), "text": lambda: TextEncoder(config)}
        encode_dataset(config, makers[recipe]() if recipe in makers else None)
    if not config.paths.report("evaluation.json").exists():
        ocrmem.train(config)
        ocrmem.evaluate(config)
    trained, found = (
        json.loads(config.paths.report(name).read_text(encoding="utf-8")) for name in ("train.json", "evaluation.json")
    )
    return {**found, "train": trained}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["staged"])
    parser.add_argument("--base-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("tiny-seeds"), help="where everything is kept")
    arguments = parser.parse_args()
    columns = ("recipe", "base seed", "seed", "tokens", "last loss", *VARIANTS)
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for recipe in arguments.recipes:
        for base_seed in arguments.base_seeds:
            for seed in arguments.seeds:
                found = measured(run_of(arguments.work, recipe, base_seed, seed), recipe)
                cells = [recipe, base_seed, seed, found["train"]["tokens"], f"{found['train']['loss']['last']:.4f}"]
                cells += [f"{found[name]['recall']:.3f}" for name in VARIANTS]
                lines.append(f"| {' | '.join(map(str, cells))} |")
                print(lines[-1], flush=True)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

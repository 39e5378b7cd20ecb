"""Loss and recall on held-out samples while proj is being trained (``train.eval_steps``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.evaluation.baselines import CaseMaker
from ocrmem.evaluation.evaluate import samples_with_memory, stored_features
from ocrmem.evaluation.scoring import Scorer
from ocrmem.evaluation.statistics import evenly_spaced, figures
from ocrmem.model.modeling import MEMModel
from ocrmem.training import collectives


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out samples with memory, ``train.eval_samples`` of them, and what scores the model on them.

    Attributes:
        samples: the same ones at every step.
    """

    samples: list[Sample]
    dataset: MemoryDataset
    features: FeatureStore
    maker: CaseMaker
    scorer: Scorer

    @classmethod
    def of(
        cls,
        config: RunConfig,
        model: MEMModel,
        builder: SequenceBuilder,
        dataset: MemoryDataset,
        features: FeatureStore,
    ) -> HeldOut | None:
        """Return those of a run; None where it does not evaluate.

        Raises:
            DataError: no held-out sample has memory.
        """
        if config.train.eval_steps is None:
            return None
        samples = evenly_spaced(samples_with_memory(dataset, Path(config.paths.dataset)), config.train.eval_samples)
        section = config.evaluate
        scorer = Scorer(
            model,
            builder.tokenizer,
            builder.end_token_id,
            batch_size=section.batch_size,
            max_new_tokens=section.max_new_tokens,
        )
        return cls(samples, dataset, features, CaseMaker(builder, builder.max_seq_length), scorer)

    def measure(self) -> dict[str, float]:
        """Return ``eval_loss`` and ``eval_recall``; all processes call this together, and each scores its share."""
        count = dist.get_world_size() if collectives.are_several() else 1
        mine = self.samples[collectives.rank() :: count]
        # Under ZeRO-3 a forward gathers weights from all processes, so each runs as many batches as the others: a
        # smaller share gets a sample more, which is not counted.
        share = -(-len(self.samples) // count)
        cases = [
            self.maker.with_memory(sample, stored_features(self.dataset, self.features, sample))
            for sample in [*mine, *self.samples[: share - len(mine)]]
        ]
        model = self.scorer.model
        training = model.training
        model.eval()
        try:
            scored = self.scorer.score(cases)[: len(mine)]
        finally:
            model.train(training)
        found = figures([one for part in collectives.gather(scored) for one in part])
        return {"eval_loss": found["loss"], "eval_recall": found["recall"]}

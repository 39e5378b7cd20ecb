"""Floating-point operations of a batch: a multiplication and an addition count as two.

For W weights that a token passes, forward takes 2 W a token. Backward takes 2 W for the gradient of the input and
2 W for that of the weight; frozen layers need only the first. A step therefore costs 4 W a token, not the 6 W of
full training (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Attention adds 4 L q forward for every token, L
positions and queries q wide, and twice that backward, as neither operand is a weight; the half that a causal mask
hides is counted, as in PaLM's definition of MFU (Chowdhery et al. 2022, arXiv:2204.02311, appendix B). A flash
kernel also computes the scores again: 2 L q (Dao et al. 2022, arXiv:2205.14135). Activation checkpointing computes
the layers again, but for the last matrix of each, which nothing in backward reads. LoRA's matrices are trained, and
their inputs need a gradient too: 6 W a token.

Equal to what torch.utils.flop_counter.FlopCounterMode counts of a step (tests/planning). Counting instead of reckoning
does not do here: MEMModel cannot run on the meta device, where placeholders have no values; attention's kernel there is
not the one that a GPU runs; and the mean lengths of a dataset's batches are no whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocrmem.families import Shape
from ocrmem.planning.activations import NO_LORA, Lora, Projection
from ocrmem.planning.workload import BatchShape


@dataclass(frozen=True)
class Flops:
    """Operations of one batch, forward and backward."""

    layers_forward: float  # matrices of the frozen layers
    layers_backward: float
    attention_forward: float  # scores and their use
    attention_backward: float
    head: float  # LM head at the supervised positions, both ways
    projector: float  # both ways; the features need no gradient
    lora: float  # both ways
    again: float  # computed a second time, by the attention kernel and by activation checkpointing

    @property
    def model(self) -> float:
        """Operations that the mathematics asks for."""
        layers = self.layers_forward + self.layers_backward
        return layers + self.attention_forward + self.attention_backward + self.head + self.projector + self.lora

    @property
    def executed(self) -> float:
        """Operations that the device computes."""
        return self.model + self.again


def flops(shape: Shape, proj: Projection, batch: BatchShape, *, checkpointing: bool, lora: Lora = NO_LORA) -> Flops:
    """Count the operations of one batch of one process."""
    matrices = 2 * batch.positions * shape.layers * shape.layer_weights
    scores = 2 * shape.layers * batch.rows * batch.square_length * shape.query  # one product of two
    first, second = proj.vision * proj.inner, proj.inner * shape.hidden
    adapted = {name: lora.rank * sum(shape.matrices[name]) for name in lora.targets}
    low_rank = 2 * batch.positions * shape.layers * sum(adapted.values())
    again = scores
    if checkpointing:
        last = lora.rank * shape.hidden if "down_proj" in lora.targets else shape.inner * shape.hidden
        again += 2 * scores + matrices + low_rank - 2 * batch.positions * shape.layers * last
    return Flops(
        layers_forward=matrices,
        layers_backward=matrices,
        attention_forward=2 * scores,
        attention_backward=4 * scores,
        head=4 * batch.answers * shape.hidden * shape.vocabulary,
        # LayerNorm's weight is trained, so with it the first matrix passes a gradient on as well.
        projector=2 * batch.memory * ((3 if proj.norm else 2) * first + 3 * second),
        lora=3 * low_rank,
        again=again,
    )

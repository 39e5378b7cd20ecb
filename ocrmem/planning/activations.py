"""Bytes that autograd keeps from forward for backward, when only the projector is trained, or LoRA beside it.

Frozen layers keep less than trained ones and yet most of it: the gradient has to pass through them to reach the
placeholders. A frozen linear layer needs its weight for that, not its input. A layer keeps, for each token, with
elements of e bytes (4 in float32, 2 in bfloat16):

- RMSNorm computes in float32 and keeps its input in it and the reciprocal root: 4 (width + 1), for the two norms
  of the residual stream and, where the model has them (Qwen3), for those of queries and keys;
- attention by torch's scaled_dot_product_attention, never a matrix of scores: query, key, value and output,
  e each, and a float32 log-sum-exp a head; in a padded batch there is a mask, for which transformers repeats keys
  and values to all heads and torch turns the mask into a bias of e bytes for every pair of positions;
- the gated MLP: gate, its SiLU and up, e each;
- residual additions and rotary embeddings: nothing (cosine and sine once for all layers).

LoRA keeps the inputs of its two matrices in float32, 4 in + 4 rank. Where the first is float32 already, layers that
read the same tensor keep it once, and attention's output is kept anyway.

Checked against torch.autograd.graph.saved_tensors_hooks in tests/planning: equal to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocrmem.families import Shape
from ocrmem.planning.workload import BatchShape

_FLOAT = 4
# What the matrices read, some of them the same; but for o_proj, which reads attention's output.
_INPUTS = {
    "q_proj": "attention", "k_proj": "attention", "v_proj": "attention",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "product",
}  # fmt: skip


@dataclass(frozen=True)
class Projection:
    """The trained projector's widths."""

    vision: int  # of a vision token
    inner: int  # between its two linear layers
    norm: bool  # whether a LayerNorm stands in front


@dataclass(frozen=True)
class Lora:
    """LoRA on matrices of every layer of the language model, by their names in `Shape.matrices`."""

    rank: int
    targets: tuple[str, ...]


NO_LORA = Lora(0, ())


@dataclass(frozen=True)
class Activations:
    """Bytes of one batch on one device."""

    layers: float  # what the language model's layers keep from forward to backward
    kept: float  # the same, and what projector, embeddings, rotary tables and final norm keep
    at_peak: float  # on top of that at the peak: the loss's backward, or a layer's, whichever is larger


def activations(
    shape: Shape, proj: Projection, batch: BatchShape, element: int, *, checkpointing: bool, lora: Lora = NO_LORA
) -> Activations:
    """Return what a batch needs besides the weights.

    Args:
        element: bytes of an element of the language model: 4 or 2.
        checkpointing: keep each layer's input alone and compute the rest again in backward.
    """
    tokens = batch.positions
    layer = _layer_bytes(shape, batch, element) + tokens * _lora_bytes(shape, lora, element)
    layers = shape.layers * (tokens * shape.hidden * element if checkpointing else layer)

    normed = proj.vision + 2 if proj.norm else 0  # LayerNorm's input, mean and reciprocal deviation
    projector = batch.memory * _FLOAT * (proj.vision + normed + 2 * proj.inner)
    placeholders = tokens  # bool
    rotary = tokens * 2 * shape.head * element
    final_norm = tokens * _FLOAT * (shape.hidden + 1)
    supervised = tokens - batch.rows  # bool
    gradient = batch.answers * shape.hidden * element  # the loss's, made with it
    around = projector + placeholders + rotary + final_norm + supervised + gradient

    # Gradients and intermediates of one layer's backward (an estimate), and with checkpointing its activations again.
    backward = tokens * (3 * shape.inner + shape.hidden) * element + (layer if checkpointing else 0.0)
    loss = 3 * _FLOAT * batch.logits * shape.vocabulary  # log-softmax, and two gradients of its size
    return Activations(layers, layers + around, max(loss, backward))


def _layer_bytes(shape: Shape, batch: BatchShape, element: int) -> float:
    """Return what one layer keeps of a batch without activation checkpointing."""
    heads = shape.query + shape.heads + shape.key + shape.kv_heads if shape.head_norms else 0
    norms = _FLOAT * (2 * (shape.hidden + 1) + heads)
    values = shape.query if batch.padded else shape.key
    attention = 2 * (shape.query + values) * element + _FLOAT * shape.heads
    mlp = 3 * shape.inner * element
    bias = batch.rows * batch.square_length * element if batch.padded else 0.0
    return batch.positions * (norms + attention + mlp) + bias


def _lora_bytes(shape: Shape, lora: Lora, element: int) -> int:
    """Return what LoRA keeps of a token in one layer."""
    read = {name: name for name in lora.targets} if element != _FLOAT else _INPUTS
    inputs = {read[name]: shape.matrices[name][0] for name in lora.targets if name in read}
    return _FLOAT * (sum(inputs.values()) + lora.rank * len(lora.targets))

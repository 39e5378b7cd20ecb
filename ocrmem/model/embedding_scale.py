"""The scale of a language model's own input embeddings, which is what it expects memory to look like."""

from __future__ import annotations

import torch
from torch import nn

from ocrmem.model.projector import Projector

_ROWS_AT_A_TIME = 8192


@torch.no_grad()
def embedding_mean_square(embedding: nn.Embedding) -> float:
    """Return the mean square of the embeddings of all tokens, as the module gives them (Gemma scales its weights)."""
    rows = torch.arange(embedding.num_embeddings, device=embedding.weight.device)
    squares = [embedding(part).float().square().sum(dtype=torch.float64) for part in rows.split(_ROWS_AT_A_TIME)]
    return float(torch.stack(squares).sum()) / (embedding.num_embeddings * embedding.embedding_dim)


def begin_output_norm(proj: Projector, embedding: nn.Embedding) -> None:
    """Begin the RMSNorm behind proj, where it has one, at the scale of the embeddings."""
    if isinstance(proj.output_norm, nn.RMSNorm):
        nn.init.constant_(proj.output_norm.weight, embedding_mean_square(embedding) ** 0.5)

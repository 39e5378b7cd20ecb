"""The projector: the only part of the model that is trained."""

from __future__ import annotations

import torch
from torch import nn


class Projector(nn.Module):
    """Linear - GELU - Linear from a vision token to an embedding of the language model.

    With ``vision_size`` 512 and ``hidden_size`` 4096 it is the ancestor's projector, parameter for parameter.

    Args:
        vision_size: width of one vision token.
        hidden_size: width of the language model's embeddings.
        inner_size: width between the two linear layers; None means ``hidden_size``.
        norm: LayerNorm in front, for encoders whose features are not of unit scale.
        output_norm: RMSNorm behind. Its weight is to begin at the scale of the language model's own embeddings.
    """

    def __init__(
        self,
        vision_size: int,
        hidden_size: int,
        *,
        inner_size: int | None = None,
        norm: bool = False,
        output_norm: bool = False,
    ) -> None:
        super().__init__()
        inner_size = inner_size or hidden_size
        self.norm = nn.LayerNorm(vision_size) if norm else nn.Identity()
        self.fc1 = nn.Linear(vision_size, inner_size)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(inner_size, hidden_size)
        self.output_norm = nn.RMSNorm(hidden_size, eps=1e-6) if output_norm else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map vision tokens [..., vision_size] to embeddings [..., hidden_size], in its own dtype.

        The cast makes features of any precision fit: bfloat16 features and float32 weights would else raise.
        """
        inner = self.act(self.fc1(self.norm(features.to(self.fc1.weight.dtype))))
        return self.output_norm(self.fc2(inner))

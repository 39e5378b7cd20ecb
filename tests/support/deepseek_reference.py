"""A second, independent writing of DeepSeek-OCR's encoder under DeepSeek's own module names.

It stands in for the published remote code, which tests cannot fetch: deepseek-ocr-encoder takes a model with
``sam_model`` and ``vision_model`` whose modules return plain tensors, and a state dict of this module has the
key names of the published safetensors (``model.`` in front).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class ReferenceModel(nn.Module):
    """Has ``sam_model`` and ``vision_model`` for the geometry of an ``UnlimitedOcrVisionConfig``."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.sam_model = Sam(config.sam_config)
        self.vision_model = Clip(config.encoder_config)


class Sam(nn.Module):
    def __init__(self, c: Any) -> None:
        super().__init__()
        grid = c.image_size // c.patch_size
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, c.hidden_size, c.patch_size, c.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, c.hidden_size))
        self.blocks = nn.ModuleList(
            Block(c, 0 if i in c.global_attn_indexes else c.window_size, grid) for i in range(c.num_hidden_layers)
        )
        out = c.output_channels
        self.neck = nn.Sequential(
            nn.Conv2d(c.hidden_size, out, 1, bias=False),
            ChannelNorm(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            ChannelNorm(out),
        )
        self.net_2 = nn.Conv2d(out, c.downsample_channels[0], 3, 2, 1, bias=False)
        self.net_3 = nn.Conv2d(c.downsample_channels[0], c.downsample_channels[1], 3, 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed.proj(x).permute(0, 2, 3, 1)
        table = self.pos_embed
        if table.shape[1] != x.shape[1]:
            size = (x.shape[1], x.shape[2])
            table = F.interpolate(table.permute(0, 3, 1, 2).float(), size, mode="bicubic", antialias=True)
            table = table.permute(0, 2, 3, 1).to(x.dtype)
        x = x + table
        for block in self.blocks:
            x = block(x)
        return self.net_3(self.net_2(self.neck(x.permute(0, 3, 1, 2))))


class Block(nn.Module):
    def __init__(self, c: Any, window: int, grid: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(c.hidden_size, eps=1e-6)
        self.norm2 = nn.LayerNorm(c.hidden_size, eps=1e-6)
        self.attn = WindowAttention(c.hidden_size, c.num_attention_heads, window or grid)
        self.mlp = nn.Module()
        self.mlp.lin1 = nn.Linear(c.hidden_size, c.mlp_dim)
        self.mlp.lin2 = nn.Linear(c.mlp_dim, c.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.mlp.lin2(F.gelu(self.mlp.lin1(self.norm2(x))))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        if not self.window:
            return self.attn(x)
        b, h, w, c = x.shape
        n = self.window
        x = F.pad(x, (0, 0, 0, -w % n, 0, -h % n))
        rows, columns = x.shape[1] // n, x.shape[2] // n
        x = x.reshape(b, rows, n, columns, n, c).transpose(2, 3).reshape(-1, n, n, c)
        x = self.attn(x).reshape(b, rows, columns, n, n, c).transpose(2, 3)
        return x.reshape(b, rows * n, columns * n, c)[:, :h, :w]


class WindowAttention(nn.Module):
    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, width // heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, h, w, c = x.shape
        q, k, v = self.qkv(x).reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        grid = q.reshape(b, self.heads, h, w, -1)
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, relative(self.rel_pos_h, h))
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, relative(self.rel_pos_w, w))
        bias = (rows[..., :, None] + columns[..., None, :]).reshape(b, self.heads, h * w, h * w)
        weights = (q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5 + bias).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, h, w, c))


def relative(table: torch.Tensor, size: int) -> torch.Tensor:
    if len(table) != 2 * size - 1:
        table = F.interpolate(table.T[None], size=2 * size - 1, mode="linear")[0].T
    at = torch.arange(size)
    return table[at[:, None] - at[None, :] + size - 1]


class ChannelNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return x.permute(0, 3, 1, 2)


class Clip(nn.Module):
    def __init__(self, c: Any) -> None:
        super().__init__()
        d = c.hidden_size
        self.embeddings = nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.zeros(d))
        self.embeddings.patch_embedding = nn.Conv2d(3, d, c.patch_size, c.patch_size, bias=False)
        self.embeddings.position_embedding = nn.Embedding((c.image_size // c.patch_size) ** 2 + 1, d)
        self.pre_layrnorm = nn.LayerNorm(d)
        self.transformer = Transformer(c)

    def forward(self, tokens_map: torch.Tensor) -> torch.Tensor:
        """DeepSeek's own path, the class token in front: [B, 1 + n, d]."""
        tokens = tokens_map.flatten(2).transpose(1, 2)
        first = self.embeddings.class_embedding.expand(len(tokens), 1, -1)
        table = self.embeddings.position_embedding.weight
        grid, size = int((len(table) - 1) ** 0.5), tokens_map.shape[-2:]
        positions = table[1:].T.reshape(1, -1, grid, grid).float()
        if size != (grid, grid):
            positions = F.interpolate(positions, size, mode="bicubic", antialias=True)
        positions = torch.cat([table[:1], positions.flatten(2)[0].T.to(table.dtype)])
        return self.transformer(self.pre_layrnorm(torch.cat([first, tokens], dim=1) + positions))


class Transformer(nn.Module):
    def __init__(self, c: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(c) for _ in range(c.num_hidden_layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class ClipLayer(nn.Module):
    def __init__(self, c: Any) -> None:
        super().__init__()
        d = c.hidden_size
        self.heads = c.num_attention_heads
        self.layer_norm1 = nn.LayerNorm(d)
        self.layer_norm2 = nn.LayerNorm(d)
        self.self_attn = nn.Module()
        self.self_attn.qkv_proj = nn.Linear(d, 3 * d)
        self.self_attn.out_proj = nn.Linear(d, d)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(d, c.intermediate_size)
        self.mlp.fc2 = nn.Linear(c.intermediate_size, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        qkv = self.self_attn.qkv_proj(self.layer_norm1(x)).reshape(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5).softmax(-1)
        x = x + self.self_attn.out_proj((weights @ v).transpose(1, 2).reshape(b, n, d))
        hidden = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden))


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of a trained model's size everywhere, position tables included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
            elif parameter.ndim == 1 or "pos" in name or "embedding" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            else:
                fan = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan**-0.5)
    return model

"""Chat sessions and memories on small random models, and counts of what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.models import small_base, small_config, small_encoder, small_settings, write_random_base

from ocrmem.config import RunConfig
from ocrmem.generation.chat_session import ChatSession
from ocrmem.model.modeling import MEMModel
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer


def new_session(max_pages: int = 64, **options: Any) -> ChatSession:
    """A session on random models, whose pages hold eight short messages."""
    tokenizer = build_tiny_tokenizer()
    config = small_config(
        max_pages=max_pages,
        max_seq_length=8192,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    base = small_base(len(tokenizer), max_position_embeddings=8192)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MEMModel(config, base, small_encoder()).eval()
    return ChatSession(model, tokenizer, RunConfig.model_validate({"model": {"device": "cpu"}}), **options)


def write_adapter(root: Path) -> RunConfig:
    """Write random models to ``root``/models and an adapter that was never trained to ``root``/adapter."""
    config = RunConfig.from_dict(small_settings(root))
    write_random_base(Path(config.paths.models))
    MEMModel.from_run_config(config, with_encoder=False).save_pretrained(config.paths.adapter)
    return config


class Read:
    """What went through a model since the last look: a prompt's tokens, and pages."""

    def __init__(self, model: MEMModel) -> None:
        self._lengths: list[int] = []
        self._pages = 0
        layer = model.base_llm_model.base_model.layers[0]
        layer.register_forward_hook(lambda _module, inputs, _output: self._lengths.append(inputs[0].shape[1]))
        if model.ocr_embed is not None:
            model.ocr_embed.register_forward_pre_hook(self._encoded)

    def _encoded(self, _module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self._pages += len(inputs[0])

    def tokens(self) -> int:
        """The prompt's tokens that the language model read; those of the answer come one by one."""
        first, *steps = self._lengths
        assert set(steps) <= {1}
        self._lengths.clear()
        return first

    def pages(self) -> int:
        """The pages that the encoder read."""
        found, self._pages = self._pages, 0
        return found

"""Small models with random weights, and a whole small workspace, for tests of everything above the model.

The random weights are wide enough for features to depend on the page and logits on the prompt; nothing here
is trained, so nothing here recalls anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen3Config,
    Qwen3ForCausalLM,
    UnlimitedOcrSamVisionConfig,
    UnlimitedOcrVisionConfig,
    UnlimitedOcrVisionEncoderConfig,
)

from ocrmem.config import RunConfig
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel

PAGE, TOKEN = 256, 32  # px, as in the tiny preset: 8 x 8 vision tokens a page
HIDDEN, VISION = 32, 64  # widths of the language model and of a "sum" feature
PLACEHOLDER = 5


def small_base(vocab_size: int = 64, *, seed: int = 0, hidden_size: int = HIDDEN, **changes: Any) -> Qwen3ForCausalLM:
    """A Qwen3 of two layers whose logits really differ from token to token."""
    settings: dict[str, Any] = {
        "hidden_size": hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 2 * hidden_size,
        "vocab_size": vocab_size,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(Qwen3Config(**(settings | changes)))


def small_encoder(features: str = "sum", *, seed: int = 0) -> DeepEncoder:
    """A DeepEncoder for pages of 256 px, 64 tokens of 32 px; features are 64 wide (concat: 128)."""
    sam = UnlimitedOcrSamVisionConfig(
        hidden_size=16,
        output_channels=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=PAGE,
        patch_size=8,
        window_size=8,
        global_attn_indexes=[],
        mlp_dim=32,
        downsample_channels=[VISION, VISION],
        initializer_range=0.1,
    )
    clip = UnlimitedOcrVisionEncoderConfig(
        hidden_size=VISION,
        intermediate_size=VISION,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8 * 14,
        patch_size=14,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DeepEncoder(UnlimitedOcrVisionConfig(sam_config=sam, encoder_config=clip), features)  # type: ignore[arg-type]


def small_config(**changes: Any) -> MEMConfig:
    """A MEMConfig that fits `small_base` and `small_encoder`."""
    settings: dict[str, Any] = {
        "base_model_name": "tiny",
        "ocr_model_name": "tiny",
        "vision_embedding_size": VISION,
        "context_threshold": 8,
        "max_seq_length": 256,
        "placeholder_token_id": PLACEHOLDER,
        "page_size": PAGE,
        "token_size": TOKEN,
        "line_height": 32,
    }
    return MEMConfig(**(settings | changes))


def small_model(*, with_encoder: bool = True, seed: int = 0, **changes: Any) -> MEMModel:
    """A MEMModel of `small_base` and `small_encoder`; ``changes`` go to its MEMConfig."""
    encoder = small_encoder(changes.get("features", "sum"), seed=seed) if with_encoder else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MEMModel(small_config(**changes), small_base(seed=seed), encoder)


def write_random_base(directory: Path, *, seed: int = 0) -> None:
    """Write ``base`` and ``encoder`` under ``directory`` (a run's ``paths.models``), with random weights.

    The language model has the vocabulary of the tiny preset's tokenizer and lies beside it, as `ocrmem base`
    leaves it, so the verbs after `base` run on it.
    """
    from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

    tokenizer = build_tiny_tokenizer()
    base = small_base(
        len(tokenizer), seed=seed, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    base.save_pretrained(directory / "base")
    tokenizer.save_pretrained(directory / "base")
    small_encoder(seed=seed).save(directory / "encoder")


def write_conversations(directory: Path, *, train: int = 16, held_out: int = 6, seed: int = 0) -> None:
    """Write train.jsonl, eval.jsonl and counterfactual.jsonl in the tiny preset's dialect."""
    from ocrmem.synthetic.tiny import tiny_conversations

    files = {
        "train": tiny_conversations(train, seed),
        "eval": tiny_conversations(held_out, seed, held_out=True),
        "counterfactual": tiny_conversations(held_out, seed, held_out=True, counterfactual=True),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, conversations in files.items():
        lines = [json.dumps(conversation) for conversation in conversations]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def small_settings(root: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Values of a params.yaml whose every path lies under ``root``; ``sections`` change single fields.

    The threshold lets some samples keep their history as text.
    """
    values: dict[str, dict[str, Any]] = {
        "model": {
            "vision_embedding_size": VISION,
            "context_threshold": 24,
            "max_seq_length": 256,
            "device": "cpu",
        },
        "render": {"page_size": PAGE, "token_size": TOKEN, "line_height": 32, "max_pages": 2},
        "data": {"path": str(root / "data"), "workers": 1},
        "check": {"min_compression_ratio": 0.0},
        "train": {"max_steps": 4, "per_device_batch_size": 4, "logging_steps": 1, "save_steps": 2},
        "evaluate": {"batch_size": 4, "max_new_tokens": 4, "examples": 2},
        "register": {"uri": f"sqlite:///{root / 'registry' / 'mlflow.db'}"},
        "tracking": {"wandb": "disabled"},
        "paths": {
            name: str(root / name)
            for name in (
                "models",
                "dataset",
                "checks",
                "features",
                "smoke",
                "adapter",
                "checkpoints",
                "reports",
            )
        }
        | {"tracking": str(root / "wandb")},
    }
    for section, changes in sections.items():
        values[section] = values.get(section, {}) | changes
    return values


def reading(inputs: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Let settings read what `small_workspace` wrote under ``inputs``; where they write to stays."""
    values["data"]["path"] = str(inputs / "data")
    values["paths"] |= {name: str(inputs / name) for name in ("models", "dataset", "features")}
    return values


def small_workspace(root: Path, *, features: bool = True, **sections: dict[str, Any]) -> RunConfig:
    """Conversations, random models, dataset and (unless switched off) features under ``root``.

    Args:
        root: an empty folder, such as pytest's tmp_path.
        features: also encode the pages.
        sections: changed fields by section, as in ``train={"max_steps": 2}``.

    Returns:
        The settings with which every later verb runs on what was written; a file of the same content is
        at ``root``/params.yaml.
    """
    from ocrmem.dataset.build import build_dataset
    from ocrmem.encoder.encode import encode_dataset

    values = small_settings(root, **sections)
    (root / "params.yaml").write_text(json.dumps(values, indent=2), encoding="utf-8")
    config = RunConfig.from_dict(values)
    write_conversations(Path(config.data.path))
    write_random_base(Path(config.paths.models))
    build_dataset(config)
    if features:
        encode_dataset(config)
    return config

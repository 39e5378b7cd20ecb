"""Build the tiny preset: ``models/encoder``, ``models/base``, and ``models/base.json`` on how they were made.

base.json is written last, so it vouches for the two directories: where it is missing, or names other settings or
other files, everything is built again.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Qwen3ForCausalLM

from ocrmem.config import BaseSection, RunConfig
from ocrmem.console import note
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.errors import MissingInputError, TrainingError
from ocrmem.families.tiny import POSITIONS
from ocrmem.files import locked, replacing_directory, sha256_json, sha256_tree, write_json
from ocrmem.json_files import BaseReport, read_json, with_sha256
from ocrmem.model.tiny.encoder import pretrain_encoder
from ocrmem.model.tiny.language_model import pretrain_language_model
from ocrmem.rendering import load_atlas
from ocrmem.synthetic.tokenizer import VOCABULARY, build_tiny_tokenizer

RECIPE = 1  # raise it when a change to this package changes what a seed gives
_REPORT = "base.json"


def build_tiny_base(config: RunConfig) -> dict[str, Any]:
    """Pre-train the tiny encoder and language model, or find them built with these settings already.

    Deterministic for ``base.seed``, a machine and its number of threads.

    Args:
        config: ``base`` and ``paths.models`` are used.

    Returns:
        What base.json holds, "cached" (nothing had to be done) and "summary".

    Raises:
        TrainingError: the encoder or the language model stayed under ``base.text_recall`` on every seed.
    """
    models, settings = Path(config.paths.models), _settings(config.base)
    found = _complete(models, settings)
    if found:
        return found | {"cached": True, "summary": ["base: already built with these settings", *_summary(found)]}
    with locked(models, "base"):
        report = _build(config, models, settings)
    return report | {"cached": False, "summary": _summary(report)}


def _build(config: RunConfig, models: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Build both models and write base.json, which is returned."""
    report_path = models / _REPORT
    report_path.unlink(missing_ok=True)  # from here on nothing vouches for what lies there
    started = time.monotonic()
    encoder, accuracy = _reading_encoder(config.base)
    with replacing_directory(config.paths.encoder) as directory:
        encoder.save(directory)
    encoder_seconds = time.monotonic() - started
    base = config.base
    model, attempts = pretrain_language_model(
        base.seed, base.lm_steps, text_recall=base.text_recall, max_attempts=base.max_attempts
    )
    with replacing_directory(config.paths.base_model) as directory:
        _save_language_model(model, directory)
    report: dict[str, Any] = {
        "settings": settings,
        "settings_hash": sha256_json(settings),
        "encoder": {
            "parameters": sum(p.numel() for p in encoder.parameters()),
            "character_accuracy": accuracy,
            "sha256": sha256_tree(config.paths.encoder),
            "seconds": round(encoder_seconds, 1),
        },
        "language_model": {
            "parameters": model.num_parameters(),
            "text_recall": attempts[-1].text_recall,
            "attempts": [asdict(attempt) for attempt in attempts],
            "sha256": sha256_tree(config.paths.base_model),
            "seconds": round(time.monotonic() - started - encoder_seconds, 1),
        },
        "threads": torch.get_num_threads(),
    }
    report = with_sha256(report)
    write_json(report_path, report)
    return report


def _settings(base: BaseSection) -> dict[str, Any]:
    """Return everything that decides the result, except the machine."""
    return base.model_dump(mode="json") | {
        "recipe": RECIPE,
        "vocabulary": sha256_json(list(VOCABULARY)),
        "atlas": load_atlas().version,
    }


def _complete(models: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the report of a finished build with these settings whose files are still the ones it wrote."""
    try:
        report = read_json(models / _REPORT, BaseReport, made_by="base")
    except MissingInputError:
        return None
    parts = {"base": report["language_model"]["sha256"], "encoder": report["encoder"]["sha256"]}
    if report["settings_hash"] != sha256_json(settings) or any(
        sha256_tree(models / name) != digest for name, digest in parts.items()
    ):
        return None
    return cast(dict[str, Any], report)


def _reading_encoder(base: BaseSection) -> tuple[DeepEncoder, float]:
    best = 0.0
    for number in range(base.max_attempts):
        seed = base.seed + 1000 * number
        encoder, accuracy = pretrain_encoder(seed, base.encoder_steps)
        if accuracy >= base.text_recall:
            return encoder, accuracy
        best = max(best, accuracy)
        note(f"character accuracy {accuracy:.3f} with seed {seed} is under {base.text_recall}")
    raise TrainingError.of(
        "base.text_recall",
        f"the tiny encoder named {best:.3f} of the characters, not {base.text_recall}",
        "Raise base.encoder_steps or base.max_attempts, or take another base.seed",
    )


def _save_language_model(model: Qwen3ForCausalLM, directory: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    model.generation_config.update(
        do_sample=False,
        max_length=POSITIONS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _summary(report: dict[str, Any]) -> list[str]:
    encoder, language = report["encoder"], report["language_model"]
    recall = language["text_recall"]
    last = language["attempts"][-1]
    return [
        f"encoder: {encoder['parameters']:,} parameters, {encoder['character_accuracy']:.1%} of the "
        f"characters of new pages right, {encoder['seconds']} s",
        f"language model: {language['parameters']:,} parameters, recall of unseen facts from text "
        f"{recall['turns']:.1%} as messages and {recall['page']:.1%} as a page's words, "
        f"{len(language['attempts'])} attempt(s), {last['steps']} steps, {language['seconds']} s",
    ]

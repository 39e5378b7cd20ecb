"""The verb ``base``: see that the frozen language model and encoder are there.

With the tiny preset it builds both. With real names it loads both once, which also fills the hub cache, and
checks that their sizes are the configured ones; a wrong name costs a minute here instead of a GPU hour later.
"""

from __future__ import annotations

from typing import Any

from ocrmem.config import TINY, RunConfig
from ocrmem.errors import ConfigError


def build_base(config: RunConfig) -> dict[str, Any]:
    """Build the tiny preset under ``paths.models``, or load the named models once.

    Raises:
        ConfigError: one of the two names is ``tiny`` and the other is not.
        ModelError: a named model does not load or does not fit.
        TrainingError: the tiny language model did not reach ``base.text_recall``.
    """
    tiny = [config.model.base_model_name == TINY, config.model.ocr_model_name == TINY]
    if all(tiny):
        from ocrmem.model.tiny.build import build_tiny_base

        return build_tiny_base(config)
    if any(tiny):
        raise ConfigError.of(
            "model.base_model_name, model.ocr_model_name",
            "only one of them is 'tiny'",
            "Name two real models, or leave both at 'tiny'",
        )
    return _load_named(config)


def _load_named(config: RunConfig) -> dict[str, Any]:
    from ocrmem.encoder.deepencoder import load_encoder
    from ocrmem.model.modeling import MEMModel
    from ocrmem.tokens import load_tokenizer

    tokenizer = load_tokenizer(config)
    model = MEMModel.from_run_config(config, with_encoder=False)
    base, encoder = model.base_llm_model, load_encoder(config)
    result: dict[str, Any] = {
        "base_model": config.model.base_model_name,
        "base_parameters": sum(int(p.numel()) for p in base.parameters()),
        "encoder": config.model.ocr_model_name,
        "encoder_parameters": sum(p.numel() for p in encoder.parameters()),
        "vocabulary": len(tokenizer),
        "tokens_per_page": encoder.tokens_for(config.render.page_size),
    }
    result["summary"] = [
        f"base: {result['base_model']} loads, {result['base_parameters']:,} parameters",
        f"encoder: {result['encoder']} loads, {result['encoder_parameters']:,} parameters, "
        f"{result['tokens_per_page']} tokens a page of {config.render.page_size} px",
    ]
    return result

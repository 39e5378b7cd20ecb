"""The verb ``base``: build the tiny language model and encoder, or check that the named ones load.

Loading also fills the hub cache and checks the configured sizes: a wrong name costs a minute here instead of a GPU
hour later.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

from ocrmem.config import TINY, RunConfig
from ocrmem.config.known_encoders import ENGLISH
from ocrmem.errors import ConfigError
from ocrmem.model.fetching import CARRIED, fetch

if TYPE_CHECKING:
    from ocrmem.encoder.comparison import Comparison


class BaseResult(TypedDict):
    """What was built (as base.json holds it) or loaded.

    Attributes:
        settings, settings_hash, encoder, language_model, threads, cached: of the tiny preset; the hash vouches for
            the build, and ``cached`` says that it was there already.
        base_model, base_parameters, encoder_parameters, vocabulary, tokens_per_page: of named models, whose
            ``encoder`` is a name; ``fetched_from`` where ``models/base`` is a copy.
        verified: what ``verify_encoder`` compared.
        summary: what a person reads.
    """

    summary: list[str]
    encoder: Any
    settings: NotRequired[dict[str, Any]]
    settings_hash: NotRequired[str]
    language_model: NotRequired[dict[str, Any]]
    threads: NotRequired[int]
    cached: NotRequired[bool]
    base_model: NotRequired[str]
    base_parameters: NotRequired[int]
    encoder_parameters: NotRequired[int]
    vocabulary: NotRequired[int]
    tokens_per_page: NotRequired[int]
    fetched_from: NotRequired[str]
    verified: NotRequired[Comparison]


def build_base(config: RunConfig, *, teach: bool = False, verify_encoder: bool = False) -> BaseResult:
    """Build the tiny preset under ``paths.models``, or fetch and load the named models once.

    Args:
        config: sections model, base, render and paths are used.
        teach: teach the encoder `english` here, in place of the one in the box.
        verify_encoder: also compare a page's features with those of the package deepseek-ocr-encoder.

    Raises:
        CheckFailed: the features differ.
        ConfigError: one of the two names is ``tiny`` and the other is not, or another encoder is to be taught.
        ModelError: a named model does not load or does not fit.
        TrainingError: the tiny language model did not reach ``base.text_recall``, or `english` does not read.
    """
    if teach:
        _teach(config)
    result = _build(config)
    if verify_encoder:
        from ocrmem.encoder.comparison import compare_implementations

        result["verified"] = compare_implementations(config)
        result["summary"] += result["verified"]["summary"]
    return result


def _teach(config: RunConfig) -> None:
    if config.model.ocr_model_name != ENGLISH:
        message = f"model.ocr_model_name is {config.model.ocr_model_name!r}, and only {ENGLISH!r} can be taught"
        raise ConfigError.of("--teach", message, f"Set model.ocr_model_name={ENGLISH}, or leave --teach out")
    from ocrmem.model.english import build_english_encoder

    build_english_encoder(config)


def _build(config: RunConfig) -> BaseResult:
    tiny = [config.model.base_model_name == TINY, config.model.ocr_model_name == TINY]
    if all(tiny):
        from ocrmem.model.tiny.build import build_tiny_base

        return cast(BaseResult, build_tiny_base(config))
    if any(tiny):
        raise ConfigError.of(
            "model.base_model_name, model.ocr_model_name",
            "only one of them is 'tiny'",
            "Name two real models, or leave both at 'tiny'",
        )
    names, came_from = config.model, None
    if names.base_model_name in CARRIED:
        came_from = fetch(names.base_model_name, names.base_revision, Path(config.paths.models))
    result = _load_named(config)
    if came_from:
        result["fetched_from"] = came_from
        result["summary"].insert(0, f"base: {names.base_model_name} from {came_from}, in {config.paths.base_model}")
    return result


def _load_named(config: RunConfig) -> BaseResult:
    from ocrmem.encoder.loading import load_encoder
    from ocrmem.model.modeling import MEMModel
    from ocrmem.tokens import load_tokenizer

    vocabulary = len(load_tokenizer(config))
    base = MEMModel.from_run_config(config, with_encoder=False).base_llm_model
    encoder = load_encoder(config)
    names, tokens = config.model, encoder.tokens_for(config.render.page_size)
    of_base, of_encoder = (sum(int(p.numel()) for p in part.parameters()) for part in (base, encoder))
    return {
        "base_model": names.base_model_name,
        "base_parameters": of_base,
        "encoder": names.ocr_model_name,
        "encoder_parameters": of_encoder,
        "vocabulary": vocabulary,
        "tokens_per_page": tokens,
        "summary": [
            f"base: {names.base_model_name} loads, {of_base:,} parameters",
            f"encoder: {names.ocr_model_name} loads, {of_encoder:,} parameters, "
            f"{tokens} tokens a page of {config.render.page_size} px",
        ],
    }

"""Rules over the two models and the sequence that joins them."""

from __future__ import annotations

from collections.abc import Iterator

from ocrmem.config.known_encoders import known_encoder
from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings
from ocrmem.families import TINY, known_positions


@rule("model.base_model_name", "model.ocr_model_name")
def tiny_goes_with_tiny(config: RunSettings) -> Iterator[Fault]:
    names = (config.model.base_model_name, config.model.ocr_model_name)
    if (names[0] == TINY) != (names[1] == TINY):
        field = "model.ocr_model_name" if names[0] == TINY else "model.base_model_name"
        message = f"is {names[names[0] == TINY]!r}, but the other of the two models is tiny"
        yield field, message, "Name two real models, or tiny for both"


@rule("model.context_threshold", "model.max_seq_length")
def threshold_is_below_the_sequence(config: RunSettings) -> Iterator[Fault]:
    threshold, longest = config.model.context_threshold, config.model.max_seq_length
    if threshold >= longest:
        yield (
            "model.context_threshold",
            f"is {threshold}, not below model.max_seq_length {longest}: only a history longer than the "
            "threshold becomes memory, and text that long is cut to fit the sequence first, so no history "
            "could ever become memory and proj would never be trained",
            f"Lower it well below {longest}, for example to {max(longest // 4, 1)}, or raise model.max_seq_length",
        )


@rule("model.ocr_model_name", "model.features", "model.vision_embedding_size")
def vision_size_is_the_encoders(config: RunSettings) -> Iterator[Fault]:
    encoder = known_encoder(config.model.ocr_model_name)
    if encoder is None:
        return
    given, gives = config.model.vision_embedding_size, encoder.sizes[config.model.features]
    if given != gives:
        yield (
            "model.vision_embedding_size",
            f"is {given}, but {config.model.ocr_model_name} with features {config.model.features!r} gives "
            f"{gives}: the first page would fail on a shape",
            f"Set it to {gives}",
        )


@rule("model.base_model_name", "model.max_seq_length", "evaluate.max_new_tokens")
def sequence_fits_the_base_model(config: RunSettings) -> Iterator[Fault]:
    positions = known_positions(config.model.base_model_name)
    longest, new = config.model.max_seq_length, config.evaluate.max_new_tokens
    if positions is not None and longest + new > positions:
        yield (
            "model.max_seq_length",
            f"is {longest}, which with evaluate.max_new_tokens {new} is more than the {positions} positions "
            f"of {config.model.base_model_name}",
            f"Lower it to {max(positions - new, 1)} or less",
        )

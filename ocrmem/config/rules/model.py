"""Rules over the two models and the sequence that joins them."""

from __future__ import annotations

from collections.abc import Iterator

from ocrmem.config.known_encoders import known_encoder
from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings
from ocrmem.families import TINY, known_positions, size_faults


@rule("model.base_model_name", "model.ocr_model_name")
def tiny_goes_with_tiny(config: RunSettings) -> Iterator[Fault]:
    names = {field: getattr(config.model, field) for field in ("base_model_name", "ocr_model_name")}
    others = [field for field, name in names.items() if name != TINY]
    if len(others) == 1:
        message = f"is {names[others[0]]!r}, but the other of the two models is tiny"
        yield f"model.{others[0]}", message, "Name two real models, or tiny for both"


@rule("model.base_model_name", "model.ocr_model_name")
def models_have_usable_sizes(config: RunSettings) -> Iterator[Fault]:
    for field in ("base_model_name", "ocr_model_name"):
        for message in size_faults(getattr(config.model, field)):
            yield f"model.{field}", message, "Correct the file, or name another model"


@rule("model.device", "model.precision")
def precision_suits_the_device(config: RunSettings) -> Iterator[Fault]:
    if config.model.device == "cpu" and config.model.precision == "float16":
        yield "model.precision", "is float16, in which training on a CPU overflows", "Use float32 or bfloat16"


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
    model = config.model
    encoder = known_encoder(model.ocr_model_name)
    if encoder and (gives := encoder.sizes[model.features]) != (given := model.vision_embedding_size):
        message = f"is {given}, but {model.ocr_model_name} with features {model.features!r} gives {gives}"
        yield "model.vision_embedding_size", f"{message}: the first page would fail on a shape", f"Set it to {gives}"


@rule("model.encoder", "model.features")
def the_package_adds_features(config: RunSettings) -> Iterator[Fault]:
    model = config.model
    if model.encoder == "deepseek-ocr-encoder" and model.features != "sum":
        message = f"is {model.features!r}, which deepseek-ocr-encoder does not give"
        yield "model.features", message, "Set it to sum and model.vision_embedding_size to its width, or use native"


@rule("model.base_model_name", "model.max_seq_length", "evaluate.max_new_tokens")
def sequence_fits_the_base_model(config: RunSettings) -> Iterator[Fault]:
    name, longest, new = config.model.base_model_name, config.model.max_seq_length, config.evaluate.max_new_tokens
    positions = known_positions(name)
    if positions is not None and longest + new > positions:
        message = f"is {longest}, which with evaluate.max_new_tokens {new} is more than the {positions} positions"
        yield "model.max_seq_length", f"{message} of {name}", f"Lower it to {max(positions - new, 1)} or less"

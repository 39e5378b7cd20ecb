"""Shapes of the language model and parameters of every part, from configurations alone, on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from ocrmem.config import TINY, RunConfig
from ocrmem.config.known_encoders import DEEPSEEK_OCR, known_encoder
from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.device import DTYPES
from ocrmem.encoder.weights import open_encoder
from ocrmem.errors import ModelError, first_line
from ocrmem.families import EXAMPLE, FAMILIES, Shape, published_config
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.model.tiny.encoder import tiny_encoder_config
from ocrmem.model.tiny.language_model import tiny_language_model_config
from ocrmem.model.trainable import trained_parameters
from ocrmem.model_places import locate


@dataclass(frozen=True)
class Parameters:
    """Elements of the parameters and their bytes in memory, as a loaded model has them."""

    trained: int  # of proj and LoRA; float32
    trained_bytes: int
    base: int  # of the frozen language model, in ``model.precision``; a tied head counts once
    base_bytes: int
    largest: int  # of the base's largest tensor
    encoder: int | None  # not loaded in training, since features exist; None where only loading it could tell


def base_config(config: RunConfig) -> PretrainedConfig:
    """Return the language model's configuration, without a network.

    Raises:
        ModelError: the name is neither tiny, nor a directory with config.json, nor in the hub cache, nor known to a
            family; or its family has no shape.
    """
    name = config.model.base_model_name
    if name == TINY:
        return tiny_language_model_config()
    try:
        found = AutoConfig.from_pretrained(name, revision=config.model.base_revision, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            message = f"its config.json describes no language model ({first_line(error)})"
            remedy = "Name a directory that holds the config.json of a language model"
            raise ModelError.of(name, message, remedy) from None
        values = published_config(name)
        if values is None:
            remedy = "Name a local directory that holds its config.json; the weights are not needed"
            message = f"the shapes of {name!r} are not known here"
            raise ModelError.of("model.base_model_name", message, remedy) from None
        found = AutoConfig.for_model(**values)
    shape_of(found, name)
    return found


def shape_of(base: PretrainedConfig, name: str = "the base model") -> Shape:
    """Return the shape of a configuration; ``name`` is for messages.

    Raises:
        ModelError: its family has none.
    """
    family = FAMILIES.get(base.model_type)
    shape = family.shape(base.to_dict()) if family else None
    if shape is None:
        message = f"{name!r} is a {base.model_type}, whose arithmetic the plan does not know"
        remedy = f"Name a model such as {EXAMPLE}, or train without a plan"
        raise ModelError.of("model.base_model_name", message, remedy)
    return shape


def count(config: RunConfig, base: PretrainedConfig) -> Parameters:
    """Count a run's parameters on the meta device.

    Raises:
        InvalidModelConfig: the settings do not fit each other.
        ConfigError, ModelError: LoRA cannot be put on the model, see `ocrmem.model.lora.add_lora`.
    """
    with torch.device("meta"):
        language = AutoModelForCausalLM.from_config(base, dtype=DTYPES[config.model.precision])
        # Any token of the vocabulary will do as a placeholder: it decides no shape.
        model = MEMModel(MEMConfig.from_run_config(config, placeholder_token_id=0), language, None)
    trained = trained_parameters(model).values()
    frozen = [parameter for parameter in language.parameters() if not parameter.requires_grad]
    return Parameters(
        trained=sum(parameter.numel() for parameter in trained),
        trained_bytes=_bytes(trained),
        base=sum(parameter.numel() for parameter in frozen),
        base_bytes=_bytes(frozen),
        largest=max(parameter.numel() for parameter in frozen),
        encoder=_encoder_parameters(config),
    )


def _bytes(parameters: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _encoder_parameters(config: RunConfig) -> int | None:
    name = config.model.ocr_model_name
    if name == TINY:
        geometry = tiny_encoder_config()
    elif Path(location := locate(name, config.paths.models, "encoder", config.model.ocr_revision)).is_dir():
        geometry = open_encoder(location).config
    elif known_encoder(name) is DEEPSEEK_OCR:
        geometry = deepseek_ocr_config()
    else:
        return None
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DeepEncoder(geometry, config.model.features).parameters())

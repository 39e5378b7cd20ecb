"""The configured encoder, loaded: native modules, or the package deepseek-ocr-encoder around the same weights."""

from __future__ import annotations

import torch
from transformers import UnlimitedOcrVisionConfig

from ocrmem.config import RunConfig
from ocrmem.encoder.deepencoder import DeepEncoder, Features
from ocrmem.encoder.device import DTYPES, pick_device
from ocrmem.encoder.page_encoding import Encoder
from ocrmem.encoder.weights import open_encoder
from ocrmem.encoder.wrapped_encoder import PACKAGE, WrappedEncoder
from ocrmem.model_places import locate


def load_encoder(config: RunConfig) -> Encoder:
    """Load the configured encoder on the configured device, frozen.

    Features are stored in the configured precision, whatever `read_native` computes in.

    Raises:
        MissingInputError: the tiny encoder has not been built yet.
        ModelError: the encoder does not load.
        ConfigError: the configured device is not there, or ``model.encoder`` is not installed.
    """
    return implemented(load_native(config, config.model.features), config.model.encoder)


def load_native(config: RunConfig, features: Features) -> DeepEncoder:
    """Load the configured encoder as native modules, whatever ``model.encoder`` says.

    Raises:
        MissingInputError, ModelError, ConfigError: as `load_encoder`.
    """
    names = config.model
    dtype, device = DTYPES[names.precision], pick_device(names.device)
    return read_native(_location(config), names.ocr_revision, features, dtype=dtype, device=device)


def read_native(
    location: str, revision: str | None, features: Features, *, dtype: torch.dtype, device: torch.device
) -> DeepEncoder:
    """Read an encoder as `DeepEncoder.from_pretrained`, onto a device.

    Args:
        dtype: of the weights on a GPU. A CPU gets float32, since bfloat16 takes about twice as long there.

    Raises:
        ModelError: it does not load.
    """
    computed_in = torch.float32 if device.type == "cpu" else dtype
    return DeepEncoder.from_pretrained(location, revision=revision, features=features, dtype=computed_in).to(device)


def implemented(native: DeepEncoder, implementation: str) -> Encoder:
    """Return native modules as they are, or within the package, as ``model.encoder`` has it.

    Raises:
        ConfigError: the package is not installed.
    """
    return WrappedEncoder.of_native(native) if implementation == PACKAGE else native


def encoder_geometry(config: RunConfig) -> UnlimitedOcrVisionConfig:
    """Return the geometry of the configured encoder, without reading its weights.

    Raises:
        MissingInputError, ModelError: as `load_encoder`.
    """
    return open_encoder(_location(config), config.model.ocr_revision).config


def _location(config: RunConfig) -> str:
    names = config.model
    return locate(names.ocr_model_name, config.paths.models, "encoder", names.ocr_revision)

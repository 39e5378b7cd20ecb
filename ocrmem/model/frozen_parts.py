"""The frozen parts of a model, loaded for a run or around an adapter: language model and encoder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from ocrmem.arguments import require_config
from ocrmem.config import RunConfig
from ocrmem.encoder.deepencoder import Features
from ocrmem.encoder.device import DTYPES, pick_device
from ocrmem.encoder.loading import implemented, load_encoder, read_native
from ocrmem.errors import ModelError, first_line
from ocrmem.model.compatibility import check_identity, require_parts
from ocrmem.model.compiled_layers import compile_layers
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.fingerprint import fingerprint
from ocrmem.model.packing import attend_within_samples
from ocrmem.model_places import locate
from ocrmem.retry import retrying
from ocrmem.tokens import load_tokenizer, memory_tokens


def parts_of_run(config: RunConfig, *, with_encoder: bool) -> tuple[MEMConfig, PreTrainedModel, nn.Module | None]:
    """Load what a run's settings name: the adapter's configuration, the language model and the encoder.

    Raises:
        MissingInputError: the tiny preset has not been built.
        ModelError: a part does not load.
        ConfigError: its layers are to be compiled, and cannot be here.
        InvalidModelConfig: the settings contradict themselves.
    """
    require_config("MEMModel.from_run_config", config)
    names = config.model
    base_at = locate(names.base_model_name, config.paths.models, "base", names.base_revision)
    encoder_at = locate(names.ocr_model_name, config.paths.models, "encoder", names.ocr_revision)
    adapter_config = MEMConfig.from_run_config(
        config,
        base_fingerprint=fingerprint(base_at, names.base_revision),
        ocr_fingerprint=fingerprint(encoder_at, names.ocr_revision),
        placeholder_token_id=memory_tokens(load_tokenizer(config), names.family).placeholder,
    )
    adapter_config.check()
    dtype, device = DTYPES[names.precision], pick_device(names.device)
    base = load_base(base_at, revision=names.base_revision, dtype=dtype, device=device)
    if config.train.packing:
        attend_within_samples(base)
    if config.train.compile_layers:
        compile_layers(base, on_gpu=device.type == "cuda")
    return adapter_config, base, load_encoder(config) if with_encoder else None


def parts_of_adapter(
    config: MEMConfig,
    base: PreTrainedModel | None,
    encoder: nn.Module | None,
    *,
    with_encoder: bool,
    implementation: str,
    models: str | Path,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[PreTrainedModel, nn.Module | None]:
    """Load what an adapter was trained with, but for the parts that are given, and check that they are the same.

    Args:
        implementation: ``model.encoder`` of the run that uses it.

    Raises:
        MissingInputError, ModelError: as `parts_of_run`; as AdapterMismatch, a part is another one.
    """
    require_parts(config, base, encoder)
    revision = None
    if base is None:
        base_at = locate(config.base_model_name, models, "base", config.base_revision)
        revision = config.base_revision
        base = load_base(base_at, revision=revision, dtype=dtype, device=device)
    else:
        base_at = str(getattr(base.config, "_name_or_path", "") or "")  # empty for one that was built in memory
    found = fingerprint(base_at, revision) if base_at else None
    check_identity("base", config.base_model_name, config.base_fingerprint, base_at, found)
    if with_encoder and encoder is None:
        encoder_at = locate(config.ocr_model_name, models, "encoder", config.ocr_revision)
        found = fingerprint(encoder_at, config.ocr_revision)
        check_identity("ocr", config.ocr_model_name, config.ocr_fingerprint, encoder_at, found)
        features = cast(Features, config.features)
        native = read_native(encoder_at, config.ocr_revision, features, dtype=dtype, device=device)
        encoder = implemented(native, implementation)
    return base, encoder


def load_base(
    location: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load the language model from a directory or a hub name.

    On the CPU its weights are pages of the mapped file, which processes share, where the file has this ``dtype``.

    Args:
        location: the directory or name; ``revision`` a commit of the latter.
        dtype: precision of the weights.
        device: a GPU gets the weights tensor by tensor, so that the CPU's memory never holds them all; the CPU
            where it is left out, and where ZeRO-3 is on, which places the weights itself.

    Raises:
        ModelError: it is not there, out of reach, or no causal language model.
    """
    place = {}
    if device is not None and device.type != "cpu" and not is_deepspeed_zero3_enabled():
        place["device_map"] = {"": device}
    try:
        return retrying(
            f"hub, {location}",
            lambda: AutoModelForCausalLM.from_pretrained(location, revision=revision, dtype=dtype, **place),
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError.of(
            location,
            f"no causal language model loads from here ({first_line(error)})",
            "Give a directory that holds one, or a hub name that this machine can reach",
        ) from error

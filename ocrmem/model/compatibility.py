"""Check that things belong together: adapter and model, settings and loaded parts, features and model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ocrmem.arguments import require, require_config
from ocrmem.config import TINY, RunConfig
from ocrmem.errors import ModelError, Problem
from ocrmem.families import EXAMPLE
from ocrmem.model.configuration import InvalidModelConfig, MEMConfig
from ocrmem.model.lora import lora_weights

# Fields of an adapter that must agree with the run that uses it: MEMConfig name -> params.yaml section.
_SHARED_FIELDS = {
    "base_model_name": "model",
    "base_revision": "model",
    "ocr_model_name": "model",
    "ocr_revision": "model",
    "features": "model",
    "vision_embedding_size": "model",
    "projector_hidden_size": "model",
    "projector_norm": "model",
    "projector_output_norm": "model",
    "page_size": "render",
    "token_size": "render",
}
# Those of them that decide what proj's weights mean.
PROJECTOR_FIELDS = (
    "features", "vision_embedding_size", "projector_hidden_size", "projector_norm", "projector_output_norm",
)  # fmt: skip
# MEMConfig name -> what an encoder calls it.
_ENCODER_FIELDS = {"vision_embedding_size": "feature_size", "token_size": "token_size", "features": "features"}
# Language models that change hidden states or logits around the head: the loss here would not be theirs.
_HEAD_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class AdapterMismatch(ModelError, ValueError):
    """An adapter does not fit what it is to be used with; names each field and both values."""


class BatchError(ModelError, ValueError):
    """A batch whose parts do not belong together."""


def require_parts(config: MEMConfig, base: nn.Module | None, encoder: nn.Module | None) -> None:
    """Refuse a name, a path or settings in place of what a model is built from.

    Raises:
        ConfigError: names the argument.
    """
    remedy = "Load an adapter with MEMModel.from_pretrained(folder), or take MEMModel.from_run_config(...)"
    require(MEMConfig, config, "MEMModel", "a MEMConfig", remedy)
    remedy = "Give the loaded model, or leave it out: it is loaded by the name that the adapter has"
    require(nn.Module | None, base, "MEMModel(base_llm_model)", "a language model", remedy)
    require(nn.Module | None, encoder, "MEMModel(ocr_embed)", "an encoder", remedy)


def check_parts(config: MEMConfig, base: PreTrainedModel, encoder: nn.Module | None, hidden_size: int) -> None:
    """Check that the configuration describes the loaded parts.

    Args:
        hidden_size: the language model's, as its embeddings have it.

    Raises:
        InvalidModelConfig: names each field and both values.
    """
    faults = []
    if config.hidden_size != hidden_size:
        message = f"is {config.hidden_size}, but the language model's is {hidden_size}"
        faults.append(("hidden_size", message, "Use the language model that the adapter was made for"))
    vocabulary = cast(nn.Embedding, base.get_input_embeddings()).num_embeddings
    if config.placeholder_token_id >= vocabulary:
        message = f"is {config.placeholder_token_id}, but the language model has {vocabulary} tokens"
        faults.append(("placeholder_token_id", message, "Set it to the id of its memory placeholder (docs/model.md)"))
    scaled = [name for name in _HEAD_SCALES if getattr(base.config.get_text_config(), name, None) is not None]
    if scaled:
        message = f"the language model sets {', '.join(scaled)}, which the loss here leaves out"
        faults.append(("base_model_name", message, f"Use a model without it, such as {EXAMPLE}"))
    for field, attribute in _ENCODER_FIELDS.items():
        wanted = getattr(config, field)
        given = getattr(encoder, attribute, wanted)
        if given != wanted:
            faults.append((field, f"is {wanted!r}, but the encoder gives {given}", f"Set {field} to {given}"))
    if lora_weights(base):
        message = "the language model carries LoRA of another adapter, so it is no longer the one that was loaded"
        faults.append(("base_llm_model", message, "Load it again, or merge its LoRA first (peft's merge_and_unload)"))
    if faults:
        raise InvalidModelConfig([Problem(*fault) for fault in faults])


def features_with_text(
    features: torch.Tensor | None, text_ids: torch.Tensor, text_lengths: torch.Tensor
) -> torch.Tensor:
    """Return features [M, d]; raise `BatchError` unless there is a text of ``text_ids`` under each of them."""
    if features is None or len(features) != len(text_lengths) or int(text_lengths.sum()) != len(text_ids):
        raise BatchError.of(
            "text_lengths",
            f"{len(text_lengths)} lengths of {len(text_ids)} text tokens do not fit the memory features",
            "Give one length for each vision token; together they are the number of text_ids",
        )
    return features


def check_features(features: torch.Tensor, width: int) -> None:
    """Check that features are [M, ``width``] and that autograd can use them.

    Raises:
        BatchError: they are not.
    """
    if features.dim() != 2 or features.shape[1] != width:
        raise BatchError.of(
            "memory_features",
            f"have shape {tuple(features.shape)}, but vision_embedding_size is {width}",
            "Encode the pages with the encoder and the `features` setting of this model",
        )
    if features.is_inference() and torch.is_grad_enabled():
        raise BatchError.of(
            "memory_features",
            "were made under torch.inference_mode(), so autograd cannot save them for backward",
            "Encode under torch.no_grad() or call .clone() outside inference mode",
        )


def check_run(config: MEMConfig, run: RunConfig, fields: Iterable[str] = tuple(_SHARED_FIELDS)) -> None:
    """Check that a run's settings are those of the adapter it is to use.

    A revision that one of the two leaves open is not a difference.

    Args:
        fields: those of MEMConfig that must agree.

    Raises:
        ConfigError: the run's settings are something else.
        AdapterMismatch: names each field and both values.
    """
    require_config("MEMModel(run_config)", run)
    problems = []
    for name in fields:
        section = _SHARED_FIELDS[name]
        adapter, here = getattr(config, name), getattr(getattr(run, section), name)
        open_revision = name.endswith("_revision") and None in (adapter, here)
        if adapter != here and not open_revision:
            message = f"is {here!r} in this run, but the adapter was trained with {adapter!r}"
            remedy = f"Set {section}.{name} to {adapter!r} or use an adapter of this run"
            problems.append(Problem(f"{section}.{name}", message, remedy))
    if problems:
        raise AdapterMismatch(problems)


def check_identity(field: str, name: str, expected: str | None, location: str, found: str | None) -> None:
    """Check that weights are those an adapter was trained with.

    The fingerprint decides where both sides have one, so a model may move; else its name does.

    Args:
        field: "base" or "ocr", the prefix of the fields in config.json.
        name: the adapter's name for the model.
        expected: the adapter's fingerprint of it.
        location: where the weights came from; empty for a model that was built in memory.
        found: their fingerprint.

    Raises:
        AdapterMismatch: they are others.
    """
    remedy = "Use the adapter with the weights it was trained on, or train one for these"
    if expected and found:
        if expected != found:
            raise AdapterMismatch.of(
                f"{field}_fingerprint",
                f"is {expected[:12]} ({name}) in the adapter, but the weights at {location} are {found[:12]}",
                remedy,
            )
    elif location and name != TINY and location != name:
        raise AdapterMismatch.of(
            f"{field}_model_name", f"is {name!r} in the adapter, but the model at hand is {location!r}", remedy
        )


def check_weights(place: str, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], width: int) -> None:
    """Check that an adapter's tensors are exactly those that the model takes.

    Args:
        own: what the model trains, by the same names; ``width`` is that of the statistics, which may be there besides.

    Raises:
        AdapterMismatch: a tensor is missing, unknown, of another shape, or not finite.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    allowed = wanted | {"feature_mean": (width,), "feature_std": (width,)}
    problems = []
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            message = f"is missing; config.json asks for shape {wanted[name]}"
        elif name not in allowed:
            message = f"has shape {tuple(tensors[name].shape)}, but config.json describes no such tensor"
        elif tuple(tensors[name].shape) != allowed[name]:
            message = f"has shape {tuple(tensors[name].shape)}, but config.json asks for {allowed[name]}"
        elif not torch.isfinite(tensors[name]).all():
            message = "has values that are not finite"
        else:
            continue
        problems.append(Problem(f"{place}: {name}", message, "Use the config.json that this adapter was saved with"))
    if problems:
        raise AdapterMismatch(problems)

"""Shapes of the language model and parameters of every part, from configurations alone.

A directory's ``config.json`` (or that of a model in the hub cache) is read; the Qwen3 family is known by name;
the tiny preset is defined in code. The model itself is then built on the meta device, where it has shapes and no
memory, and its parameters are counted as those of a loaded one would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, Qwen3Config

from ocrmem.config import TINY, RunConfig
from ocrmem.config_rules.known import DEEPSEEK_OCR, QWEN3_NAME, known_encoder
from ocrmem.encoder.device import DTYPES
from ocrmem.errors import ModelError, first_line
from ocrmem.model.trainable import count_parameters

if TYPE_CHECKING:
    from ocrmem.model.modeling import MEMModel

# hidden size, layers, heads, key-value heads, MLP size, tied embeddings; heads are 128 wide, the vocabulary 151936.
# Source: config.json of Qwen/Qwen3-0.6B ... Qwen/Qwen3-32B; -Base and -2507 have the same shapes.
_QWEN3 = {
    "0.6": (1024, 28, 16, 8, 3072, True),
    "1.7": (2048, 28, 16, 8, 6144, True),
    "4": (2560, 36, 32, 8, 9728, True),
    "8": (4096, 36, 32, 8, 12288, False),
    "14": (5120, 40, 40, 8, 17408, False),
    "32": (5120, 64, 64, 8, 25600, False),
}
_HEAD, _VOCABULARY = 128, 151936


@dataclass(frozen=True)
class Shape:
    """A Qwen3 as the arithmetic sees it.

    Attributes:
        layers: transformer layers.
        hidden: width of the residual stream.
        heads, kv_heads, head: attention heads, those of keys and values, and the width of one.
        inner: width of the gated MLP.
        vocabulary: rows of the LM head.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> Shape:
        """The shape of a transformers configuration."""
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.intermediate_size,
            config.vocab_size,
        )

    @property
    def query(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head

    @property
    def key(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.kv_heads * self.head

    @property
    def layer_weights(self) -> int:
        """Elements of a layer's seven weight matrices: q, k, v, o, gate, up and down."""
        return 2 * self.hidden * (self.query + self.key) + 3 * self.hidden * self.inner


@dataclass(frozen=True)
class Parameters:
    """Parameters and their bytes in memory, as a loaded model has them.

    Attributes:
        trained: elements of proj; float32.
        trained_bytes: their bytes.
        base: elements of the frozen language model, in ``model.precision``; a tied head counts once.
        base_bytes: their bytes.
        largest: elements of the base's largest tensor.
        encoder: elements of the encoder, which training does not load since features exist; None where only
            loading it could tell.
    """

    trained: int
    trained_bytes: int
    base: int
    base_bytes: int
    largest: int
    encoder: int | None


def base_config(config: RunConfig) -> PretrainedConfig:
    """The language model's configuration, without a network.

    Raises:
        ModelError: the name is neither tiny, nor a directory with config.json, nor in the hub cache, nor a known
            Qwen3; or it is no Qwen3, of which alone the arithmetic is known.
    """
    name = config.model.base_model_name
    if name == TINY:
        from ocrmem.model.tiny.language_model import tiny_language_model_config

        return tiny_language_model_config()
    found = _stored_config(name, config.model.base_revision)
    if found is None:
        match = QWEN3_NAME.match(name)
        if not match:
            raise ModelError.of(
                "model.base_model_name",
                f"the shapes of {name!r} are not known here",
                "Name a local directory that holds its config.json; the weights are not needed",
            )
        return _published(match["size"])
    if found.model_type != "qwen3":
        raise ModelError.of(
            "model.base_model_name",
            f"{name!r} is a {found.model_type}; the plan knows the arithmetic of qwen3 alone",
            "Name a Qwen3, or train without a plan",
        )
    return found


def meta_model(config: RunConfig, base: PretrainedConfig) -> MEMModel:
    """The model of a run on the meta device, without the encoder."""
    from ocrmem.model.configuration import MEMConfig
    from ocrmem.model.modeling import MEMModel

    with torch.device("meta"):
        language = AutoModelForCausalLM.from_config(base, dtype=DTYPES[config.model.precision])
        # Any token of the vocabulary will do as a placeholder: it decides no shape.
        return MEMModel(MEMConfig.from_run_config(config, placeholder_token_id=0), language, None)


def count(config: RunConfig, base: PretrainedConfig) -> Parameters:
    """Count a run's parameters on the meta device.

    Raises:
        InvalidModelConfig: the settings do not fit each other.
    """
    model = meta_model(config, base)
    parts = {part.part: part for part in count_parameters(model)}
    frozen = list(model.base_llm_model.parameters())
    return Parameters(
        trained=parts["proj"].trainable,
        trained_bytes=_bytes(model.proj.parameters()),
        base=parts["base"].total,
        base_bytes=_bytes(frozen),
        largest=max(parameter.numel() for parameter in frozen),
        encoder=_encoder_parameters(config),
    )


def _bytes(parameters: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _published(size: str) -> Qwen3Config:
    hidden, layers, heads, kv_heads, inner, tied = _QWEN3[size]
    return Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=_HEAD,
        intermediate_size=inner,
        vocab_size=_VOCABULARY,
        tie_word_embeddings=tied,
    )


def _stored_config(name: str, revision: str | None) -> PretrainedConfig | None:
    """The configuration in a directory or in the hub cache; None where there is none."""
    try:
        return AutoConfig.from_pretrained(name, revision=revision, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            raise ModelError.of(
                name,
                f"its config.json describes no language model ({first_line(error)})",
                "Name a directory that holds the config.json of a Qwen3",
            ) from None
        return None


def _encoder_parameters(config: RunConfig) -> int | None:
    from ocrmem.encoder.architecture import deepseek_ocr_config
    from ocrmem.encoder.deepencoder import DeepEncoder
    from ocrmem.encoder.weights import open_encoder

    name = config.model.ocr_model_name
    if name == TINY:
        from ocrmem.model.tiny.encoder import tiny_encoder_config

        geometry = tiny_encoder_config()
    elif Path(name).is_dir():
        geometry = open_encoder(name).config
    elif known_encoder(name) is DEEPSEEK_OCR:
        geometry = deepseek_ocr_config()
    else:
        return None
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DeepEncoder(geometry, config.model.features).parameters())

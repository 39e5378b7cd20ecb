"""MEMConfig: an adapter's config.json.

Reading one is lenient, so that any config.json can be inspected; `MEMConfig.problems` lists what is wrong with it, and
building a `MEMModel` from it is strict.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, ClassVar

from transformers import PretrainedConfig

from ocrmem.arguments import require_config
from ocrmem.config import LabelSection, LoraSection, RenderSection, RunConfig
from ocrmem.config.known_encoders import known_encoder
from ocrmem.errors import ConfigError, Problem
from ocrmem.families.qwen3 import IMAGE_PAD_ID

# What transformers itself writes into a config.json and is safe to hand back to it.
_PASSED_ON = ("architectures", "transformers_version", "name_or_path")
# Name, least value, and whether it may be None.
_WHOLE_NUMBERS = (
    ("vision_embedding_size", 1, False),
    ("context_threshold", 0, False),
    ("max_seq_length", 1, False),
    ("projector_hidden_size", 1, True),
    ("hidden_size", 1, True),
    ("placeholder_token_id", 0, False),
)
# What may be given by position, in this order.
_POSITIONAL = ("base_model_name", "ocr_model_name", "vision_embedding_size", "context_threshold")


class InvalidModelConfig(ConfigError, ValueError):
    """A MEMConfig from which no model can be built; names each field."""


class MEMConfig(PretrainedConfig):
    """Everything needed to rebuild the model around an adapter, and a memory from text.

    Args:
        base_model_name: "tiny", a hub name or a directory; the frozen language model.
        ocr_model_name: "tiny", a hub name or a directory; the frozen encoder.
        vision_embedding_size: width of one vision token as the encoder gives it.
        context_threshold: histories of more tokens than this become pages.
        max_seq_length: tokens of one sequence, memory included.
        base_revision, ocr_revision: commits of the two models on the hub.
        base_fingerprint, ocr_fingerprint: identity of their weights, see `ocrmem.model.fingerprint.fingerprint`.
        features: "sum" or "concat", see `ocrmem.config.ModelSection`.
        projector_hidden_size: None means the language model's hidden size.
        projector_norm: LayerNorm in front of the projector.
        projector_output_norm: RMSNorm behind it.
        lora: rank, alpha and targets of LoRA on the language model, see `ocrmem.config.LoraSection`; None without.
        hidden_size: the language model's; None is filled in when the model is built.
        placeholder_token_id: the token that stands for one vision token.
        drop_blank_tokens, recent_turns, page_size ... labels: as in params.yaml, the settings of the pages.
        system: the system message that most training samples had; None without.
        extra: any other field is kept as it is.
    """

    model_type = "ocrmem"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["memory_tokens"]
    base_model_name: str = ""
    ocr_model_name: str = ""
    vision_embedding_size: int = 1024
    context_threshold: int = 1024
    max_seq_length: int = 2048
    base_revision: str | None = None
    ocr_revision: str | None = None
    base_fingerprint: str | None = None
    ocr_fingerprint: str | None = None
    features: str = "sum"
    projector_hidden_size: int | None = None
    projector_norm: bool = False
    projector_output_norm: bool = False
    lora: dict[str, Any] | None = None
    hidden_size: int | None = None
    placeholder_token_id: int = IMAGE_PAD_ID
    drop_blank_tokens: bool = True
    recent_turns: int = 1
    page_size: int = 1024
    token_size: int = 64
    line_height: int = 16
    max_pages: int = 8
    newlines: str = "break"
    align: str = "none"
    tab_width: int = 4
    atlas: str = "unifont"
    labels: dict[str, str] | None = None
    system: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= dict(zip(_POSITIONAL[: len(args)], args, strict=True))
        super().__init__(**{name: kwargs.pop(name) for name in _PASSED_ON if isinstance(kwargs.get(name), str | list)})
        for name, default in self.own_fields().items():
            setattr(self, name, kwargs.pop(name, default))
        if self.labels is None:
            self.labels = LabelSection().model_dump()
        # Fields that transformers checks by type would raise here on an odd value, so they stay out.
        inherited = set(PretrainedConfig.__dataclass_fields__) | {"dtype", "torch_dtype", "num_labels"}
        for name, value in kwargs.items():
            if name not in inherited and not hasattr(type(self), name):
                setattr(self, name, value)

    @classmethod
    def own_fields(cls) -> dict[str, Any]:
        """Return the fields that are not transformers' own, with their defaults."""
        return {f.name: f.default for f in fields(cls) if f.name not in PretrainedConfig.__dataclass_fields__}

    @classmethod
    def from_run_config(cls, config: RunConfig, **derived: Any) -> MEMConfig:
        """Return the adapter's side of a run's settings; ``derived`` adds what only the loaded parts know."""
        require_config("MEMConfig.from_run_config", config)
        values = config.model.model_dump() | config.render.model_dump() | config.data.model_dump()
        if (lora := config.train.lora) is not None:
            values["lora"] = lora.model_dump() | {"targets": list(lora.targets or config.model.family.attention)}
        return cls(**{name: value for name, value in values.items() if name in cls.own_fields()}, **derived)

    def adapter_json(self) -> str:
        """Return the text of config.json: this class's own fields, without transformers' defaults."""
        inherited = set(PretrainedConfig().to_dict()) - {"transformers_version", "model_type"}
        values = {name: value for name, value in self.to_dict().items() if name not in inherited}
        for newer in ("projector_output_norm", "lora", "system"):
            if not values[newer]:  # an adapter without it has the config.json, and so the hash, of an older one
                del values[newer]
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n"

    def render_section(self) -> RenderSection:
        """Return the settings of the pages, to draw a new history just as the training pages were drawn.

        Raises:
            InvalidModelConfig: a value that cannot be a render setting.
        """
        values = {name: getattr(self, name) for name in RenderSection.model_fields if name in self.own_fields()}
        try:
            return RenderSection.model_validate(values)
        except ValueError as error:
            raise InvalidModelConfig.of(
                "config.json", f"its page settings are not usable ({error})", "Train or import the adapter again"
            ) from None

    def problems(self) -> list[Problem]:
        """Return every reason why no model can be built from this configuration; empty when there is none."""
        found = [
            Problem(name, "is empty", "Give 'tiny', a hub name or a directory")
            for name in ("base_model_name", "ocr_model_name")
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip()
        ]
        for name, least, optional in _WHOLE_NUMBERS:
            value = getattr(self, name)
            if not (optional and value is None) and not (_is_int(value) and value >= least):
                found.append(Problem(name, f"is {value!r}", f"Give a whole number of at least {least}"))
        if self.features not in ("sum", "concat"):
            found.append(Problem("features", f"is {self.features!r}", "Use 'sum' or 'concat'"))
        if self.lora is not None and not _is_lora(self.lora):
            found.append(Problem("lora", f"is {self.lora!r}", "Give rank, alpha and a list of targets, or null"))
        if not isinstance(self.system, str | None):
            found.append(Problem("system", f"is {self.system!r}", "Give a text, or null"))
        threshold, longest = self.context_threshold, self.max_seq_length
        if _is_int(threshold) and _is_int(longest) and threshold >= longest:
            message = f"is {threshold}, not below max_seq_length {longest}: no history could ever become memory"
            found.append(Problem("context_threshold", message, "Lower context_threshold or raise max_seq_length"))
        encoder = known_encoder(self.ocr_model_name) if isinstance(self.ocr_model_name, str) else None
        width = encoder.sizes.get(self.features) if encoder and isinstance(self.features, str) else None
        if width is not None and self.vision_embedding_size != width:
            gives = f"{self.ocr_model_name} gives {width} (features: {self.features})"
            message = f"is {self.vision_embedding_size!r}, but {gives}"
            found.append(Problem("vision_embedding_size", message, f"Set vision_embedding_size to {width}"))
        return found

    def check(self) -> None:
        """Raise what `problems` finds.

        Raises:
            InvalidModelConfig: (a ValueError) with every problem.
        """
        if found := self.problems():
            raise InvalidModelConfig(found)


def _is_lora(value: object) -> bool:
    try:
        section = LoraSection.model_validate(value)
    except ValueError:
        return False
    return section.targets is not None and section.model_fields_set == LoraSection.model_fields.keys()


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

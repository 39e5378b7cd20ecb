"""MEMConfig: an adapter's config.json.

Reading one is lenient, so that any config.json can be inspected; `MEMConfig.problems` lists what is wrong with it, and
building a `MEMModel` from it is strict.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from transformers import PretrainedConfig

from ocrmem.config import LabelSection, RenderSection, RunConfig
from ocrmem.config.known_encoders import known_encoder
from ocrmem.errors import ConfigError, Problem
from ocrmem.families.qwen3 import IMAGE_PAD_ID

# What transformers itself writes into a config.json and is safe to hand back to it.
_PASSED_ON = ("architectures", "transformers_version", "name_or_path")
# Fields that are settings of a run under the same name.
_MODEL_FIELDS = (
    "base_model_name", "base_revision", "ocr_model_name", "ocr_revision", "features", "vision_embedding_size",
    "context_threshold", "max_seq_length", "projector_hidden_size", "projector_norm", "drop_blank_tokens",
)  # fmt: skip
_RENDER_FIELDS = ("page_size", "token_size", "line_height", "max_pages", "newlines", "tab_width", "atlas")


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
        hidden_size: the language model's; None is filled in when the model is built.
        placeholder_token_id: the token that stands for one vision token.
        drop_blank_tokens, recent_turns, page_size ... labels: as in params.yaml, the settings of the pages.
        extra: any other field is kept as it is.
    """

    model_type = "ocrmem"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["memory_tokens"]

    def __init__(
        self,
        base_model_name: str = "",
        ocr_model_name: str = "",
        vision_embedding_size: int = 1024,
        context_threshold: int = 1024,
        *,
        max_seq_length: int = 2048,
        base_revision: str | None = None,
        ocr_revision: str | None = None,
        base_fingerprint: str | None = None,
        ocr_fingerprint: str | None = None,
        features: str = "sum",
        projector_hidden_size: int | None = None,
        projector_norm: bool = False,
        hidden_size: int | None = None,
        placeholder_token_id: int = IMAGE_PAD_ID,
        drop_blank_tokens: bool = True,
        recent_turns: int = 1,
        page_size: int = 1024,
        token_size: int = 64,
        line_height: int = 16,
        max_pages: int = 8,
        newlines: str = "break",
        tab_width: int = 4,
        atlas: str = "unifont",
        labels: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(**{name: extra.pop(name) for name in _PASSED_ON if isinstance(extra.get(name), str | list)})
        self.base_model_name = base_model_name
        self.base_revision = base_revision
        self.base_fingerprint = base_fingerprint
        self.ocr_model_name = ocr_model_name
        self.ocr_revision = ocr_revision
        self.ocr_fingerprint = ocr_fingerprint
        self.features = features
        self.vision_embedding_size = vision_embedding_size
        self.context_threshold = context_threshold
        self.max_seq_length = max_seq_length
        self.projector_hidden_size = projector_hidden_size
        self.projector_norm = projector_norm
        self.hidden_size = hidden_size
        self.placeholder_token_id = placeholder_token_id
        self.drop_blank_tokens = drop_blank_tokens
        self.recent_turns = recent_turns
        self.page_size = page_size
        self.token_size = token_size
        self.line_height = line_height
        self.max_pages = max_pages
        self.newlines = newlines
        self.tab_width = tab_width
        self.atlas = atlas
        self.labels = LabelSection().model_dump() if labels is None else labels
        # Fields that transformers checks by type would raise here on an odd value, so they stay out.
        own_fields = set(PretrainedConfig.__dataclass_fields__) | {"dtype", "torch_dtype", "num_labels"}
        for name, value in extra.items():
            if name not in own_fields and not hasattr(type(self), name):
                setattr(self, name, value)

    @classmethod
    def from_run_config(cls, config: RunConfig, **derived: Any) -> MEMConfig:
        """Return the adapter's side of a run's settings; ``derived`` adds what only the loaded parts know."""
        model, render = config.model, config.render
        return cls(
            recent_turns=config.data.recent_turns,
            labels=render.labels.model_dump(),
            **{name: getattr(model, name) for name in _MODEL_FIELDS},
            **{name: getattr(render, name) for name in _RENDER_FIELDS},
            **derived,
        )

    def adapter_json(self) -> str:
        """Return the text of config.json: this class's own fields, without transformers' defaults."""
        inherited = set(PretrainedConfig().to_dict()) - {"transformers_version", "model_type"}
        values = {name: value for name, value in self.to_dict().items() if name not in inherited}
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n"

    def render_section(self) -> RenderSection:
        """Return the settings of the pages, to draw a new history just as the training pages were drawn.

        Raises:
            InvalidModelConfig: a value that cannot be a render setting.
        """
        values = {name: getattr(self, name) for name in _RENDER_FIELDS} | {"labels": self.labels}
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
        found += self._threshold_problems() + self._width_problems()
        return found

    def check(self) -> None:
        """Raise what `problems` finds.

        Raises:
            InvalidModelConfig: (a ValueError) with every problem.
        """
        if found := self.problems():
            raise InvalidModelConfig(found)

    def _threshold_problems(self) -> list[Problem]:
        threshold, longest = self.context_threshold, self.max_seq_length
        if not (_is_int(threshold) and _is_int(longest)) or threshold < longest:
            return []
        message = f"is {threshold}, not below max_seq_length {longest}: no history could ever become memory"
        return [Problem("context_threshold", message, "Lower context_threshold or raise max_seq_length")]

    def _width_problems(self) -> list[Problem]:
        encoder = known_encoder(self.ocr_model_name) if isinstance(self.ocr_model_name, str) else None
        width = encoder.sizes.get(self.features) if encoder and isinstance(self.features, str) else None
        if width is None or self.vision_embedding_size == width:
            return []
        gives = f"{self.ocr_model_name} gives {width} (features: {self.features})"
        message = f"is {self.vision_embedding_size!r}, but {gives}"
        return [Problem("vision_embedding_size", message, f"Set vision_embedding_size to {width}")]


_WHOLE_NUMBERS = (
    ("vision_embedding_size", 1, False),
    ("context_threshold", 0, False),
    ("max_seq_length", 1, False),
    ("projector_hidden_size", 1, True),
    ("hidden_size", 1, True),
    ("placeholder_token_id", 0, False),
)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""A model from a run's settings or from an adapter directory, and an adapter directory from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ocrmem.config import RunConfig
from ocrmem.encoder.device import DTYPES, pick_device
from ocrmem.model import compatibility, loading
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.projector import Projector


class AdapterModel(PreTrainedModel):
    """The part of `MEMModel` that knows about files: building, saving, loading; nothing frozen is saved."""

    config: MEMConfig
    config_class = MEMConfig
    proj: Projector
    feature_mean: torch.Tensor | None
    feature_std: torch.Tensor | None

    @classmethod
    def from_run_config(cls, config: RunConfig, *, with_encoder: bool) -> Self:
        """The model of a run, with a new proj that is the same for the same ``train.seed``.

        Args:
            config: names, precision and device; proj itself is always float32.
            with_encoder: also load the encoder; not needed where features are stored.

        Raises:
            MissingInputError: the tiny preset has not been built.
            ModelError: a part does not load.
            InvalidModelConfig: the settings do not fit the parts.
        """
        from ocrmem.families import family_of
        from ocrmem.tokens import load_tokenizer, memory_tokens

        parts = config.model
        base_at = loading.locate(parts.base_model_name, config.paths.models, "base")
        encoder_at = loading.locate(parts.ocr_model_name, config.paths.models, "encoder")
        adapter_config = MEMConfig.from_run_config(
            config,
            base_fingerprint=loading.fingerprint(base_at, parts.base_revision),
            ocr_fingerprint=loading.fingerprint(encoder_at, parts.ocr_revision),
            placeholder_token_id=memory_tokens(
                load_tokenizer(config), family_of(parts.base_model_name, parts.base_revision)
            ).placeholder,
        )
        adapter_config.check()
        dtype, device = DTYPES[parts.precision], pick_device(parts.device)
        base = loading.load_base(base_at, revision=parts.base_revision, dtype=dtype, device=device)
        encoder = _load_encoder(adapter_config, encoder_at, dtype, device) if with_encoder else None
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(config.train.seed)
            model = cls(adapter_config, base, encoder)
        cast(nn.Module, model).to(device)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        adapter_dir: str | Path,
        *,
        base_llm_model: PreTrainedModel | None = None,
        ocr_embed: nn.Module | None = None,
        with_encoder: bool = False,
        models: str | Path = "models",
        run_config: RunConfig | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Self:
        """Load an adapter, and around it the frozen parts it was trained with.

        Args:
            adapter_dir: folder with adapter.safetensors and config.json.
            base_llm_model: the language model, if it is loaded already.
            ocr_embed: the encoder, if it is loaded already.
            with_encoder: load the encoder too.
            models: where the tiny preset was built (``paths.models``).
            run_config: settings the adapter must fit; its ``paths.models``, precision and device are used.
            dtype: precision of the frozen parts.
            device: "auto", "cpu", "cuda" ...

        Raises:
            MissingInputError: a file is not there.
            ModelError: a file is broken; or, as AdapterMismatch, the adapter does not fit the language model,
                the encoder or the run, naming the field and both values.
            InvalidModelConfig: the adapter's configuration cannot be built.
        """
        directory = Path(adapter_dir)
        config = loading.read_config(directory)
        if run_config is not None:
            compatibility.check_run(config, run_config)
            models, device = run_config.paths.models, run_config.model.device
            dtype = DTYPES[run_config.model.precision]
        config.check()
        tensors = loading.read_weights(directory)
        target, base_revision = pick_device(device), None
        if base_llm_model is not None:
            # Empty for a model that was built in memory.
            base_at = str(getattr(base_llm_model.config, "_name_or_path", "") or "")
        else:
            base_at, base_revision = (
                loading.locate(config.base_model_name, models, "base"),
                config.base_revision,
            )
            base_llm_model = loading.load_base(base_at, revision=base_revision, dtype=dtype, device=target)
        found = loading.fingerprint(base_at, base_revision) if base_at else None
        compatibility.check_identity("base", config.base_model_name, config.base_fingerprint, base_at, found)
        if with_encoder and ocr_embed is None:
            encoder_at = loading.locate(config.ocr_model_name, models, "encoder")
            found = loading.fingerprint(encoder_at, config.ocr_revision)
            compatibility.check_identity("ocr", config.ocr_model_name, config.ocr_fingerprint, encoder_at, found)
            ocr_embed = _load_encoder(config, encoder_at, dtype, target)
        model = cls(config, base_llm_model, ocr_embed)
        compatibility.check_weights(str(directory / loading.WEIGHTS), tensors, model.proj, config.vision_embedding_size)
        model.load_adapter_tensors(tensors)
        cast(nn.Module, model).to(target)
        return model

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, state_dict: dict[str, torch.Tensor] | None = None, **_: Any
    ) -> None:
        """Save the adapter alone: proj, feature statistics and config.json.

        Args:
            save_directory: made if it is not there; other files in it stay.
            state_dict: tensors to save instead of the model's own (gathered ones under ZeRO-3); the frozen
                parts among them are left out.
        """
        loading.write_adapter(Path(save_directory), self.config, self.adapter_tensors(state_dict))

    def adapter_tensors(self, state_dict: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """What an adapter file holds: ``proj.*`` and, where set, ``feature_mean`` and ``feature_std``."""
        if state_dict is None:
            state_dict = {f"proj.{name}": tensor for name, tensor in self.proj.state_dict().items()}
            statistics = {"feature_mean": self.feature_mean, "feature_std": self.feature_std}
            state_dict |= {name: tensor for name, tensor in statistics.items() if tensor is not None}
        return {name: t for name, t in state_dict.items() if name.startswith(("proj.", "feature_"))}

    def load_adapter_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put tensors named as in `adapter_tensors` into the model; their names and shapes must fit."""
        proj = {name.removeprefix("proj."): t for name, t in tensors.items() if name.startswith("proj.")}
        self.proj.load_state_dict(proj)
        if "feature_mean" in tensors and "feature_std" in tensors:
            self.set_feature_statistics(tensors["feature_mean"], tensors["feature_std"])

    def set_feature_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Remember mean and standard deviation [d] of the training features; the adapter carries them."""
        device = self.proj.fc1.weight.device
        self.feature_mean = mean.to(device, torch.float32)
        self.feature_std = std.to(device, torch.float32)

    def feature_drift(self, features: torch.Tensor) -> float | None:
        """How far features [M, d] are from those the adapter was trained on.

        Returns:
            The mean over channels of |mean - trained mean| / trained std; None without stored statistics.
            Far above 1 tells of another encoder, precision or page geometry.
        """
        if self.feature_mean is None or self.feature_std is None:
            return None
        distance = (features.to(self.feature_mean).mean(0) - self.feature_mean).abs()
        return float((distance / self.feature_std.clamp(min=1e-6)).mean())


def _load_encoder(config: MEMConfig, location: str, dtype: torch.dtype, device: torch.device) -> nn.Module:
    from ocrmem.encoder.deepencoder import DeepEncoder

    if device.type == "cpu":
        dtype = torch.float32  # bfloat16 takes about twice as long there
    features = cast(Literal["sum", "concat"], config.features)
    return DeepEncoder.from_pretrained(location, revision=config.ocr_revision, features=features, dtype=dtype)

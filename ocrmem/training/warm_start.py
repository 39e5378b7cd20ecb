"""Begin a training with another adapter (``train.from_adapter``): its proj and LoRA, and nothing else of its run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ocrmem.config import RunConfig
from ocrmem.facts import ADAPTER_FILES, LORA, PROJ
from ocrmem.model.adapter_files import read_config, read_weights
from ocrmem.model.compatibility import PROJECTOR_FIELDS, AdapterMismatch, check_run, check_weights
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.package import adapter_sha256
from ocrmem.training.zero3 import gathered


@dataclass(frozen=True)
class WarmStart:
    """The adapter that a training begins with.

    Base model and pages may be others than those of its training: to learn them is what it is trained on for.

    Attributes:
        sha256: as `ocrmem.package.adapter_sha256`.
    """

    directory: Path
    config: MEMConfig
    tensors: dict[str, torch.Tensor]
    sha256: str

    @classmethod
    def of(cls, run: RunConfig) -> WarmStart | None:
        """Read what ``train.from_adapter`` names; None where it names nothing.

        Raises:
            MissingInputError: it is not there.
            ModelError: it is damaged or no adapter; as AdapterMismatch where its projector is not built as the run's,
                or it has LoRA and the run not the same.
        """
        if run.train.from_adapter is None:
            return None
        directory = Path(run.train.from_adapter)
        config = read_config(directory)
        if run.train.drop_lora:
            config.lora = None
        check_run(config, run, PROJECTOR_FIELDS)
        wanted = MEMConfig.from_run_config(run).lora
        if config.lora not in (None, wanted):
            raise AdapterMismatch.of(
                "train.lora",
                f"is {_setting(wanted)} in this run, but the adapter was trained with {_setting(config.lora)}",
                f"Set train.lora to {_setting(config.lora)}, or train.drop_lora to true to begin with its proj alone",
            )
        tensors = read_weights(directory)
        if run.train.drop_lora:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{LORA}.")}
        return cls(directory, config, tensors, adapter_sha256(directory))

    def load_into(self, model: MEMModel) -> None:
        """Put the weights into the model; all processes call this together.

        Raises:
            AdapterMismatch: they are for a language model of another width, or are not whole.
        """
        if self.config.hidden_size != model.config.hidden_size:
            raise AdapterMismatch.of(
                f"{self.directory / ADAPTER_FILES[1]}: hidden_size",
                f"is {self.config.hidden_size}, but the language model's is {model.config.hidden_size}",
                "Use the language model that the adapter was made for, or train without --from-adapter",
            )
        # LoRA that only the run has begins as one that changes nothing.
        lora = {} if self.config.lora is None else model.lora_weights()
        with gathered([*model.proj.parameters(), *lora.values()], writer=0), torch.no_grad():
            own = {f"{PROJ}.{name}": tensor for name, tensor in model.proj.state_dict().items()} | lora
            check_weights(str(self.directory), self.tensors, own, model.config.vision_embedding_size)
            for name, tensor in own.items():
                tensor.copy_(self.tensors[name])


def _setting(lora: dict[str, Any] | None) -> str:
    """Return LoRA's settings as --set takes them."""
    return json.dumps(lora, sort_keys=True)

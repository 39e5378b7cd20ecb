"""Begin a training with another adapter's proj (``train.from_adapter``): its weights, and nothing else of its run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ocrmem.config import RunConfig
from ocrmem.facts import ADAPTER_FILES, LORA, PROJ
from ocrmem.model.adapter_files import proj_tensors, read_config, read_weights
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
                which may have more inner units.
        """
        if run.train.from_adapter is None:
            return None
        directory = Path(run.train.from_adapter)
        config = read_config(directory)
        units = config.projector_hidden_size or config.hidden_size
        wider = units is not None and (run.model.projector_hidden_size or 0) > units
        check_run(config, run, [name for name in PROJECTOR_FIELDS if not (wider and name == "projector_hidden_size")])
        return cls(directory, config, read_weights(directory), adapter_sha256(directory))

    def load_into(self, model: MEMModel) -> None:
        """Put the weights into the model's proj; all processes call this together.

        Raises:
            AdapterMismatch: they are for a language model of another width, or are not whole.
        """
        if self.config.hidden_size != model.config.hidden_size:
            raise AdapterMismatch.of(
                f"{self.directory / ADAPTER_FILES[1]}: hidden_size",
                f"is {self.config.hidden_size}, but the language model's is {model.config.hidden_size}",
                "Use the language model that the adapter was made for, or train without --from-adapter",
            )
        with gathered(model.proj.parameters(), writer=0), torch.no_grad():
            own = {f"{PROJ}.{name}": tensor for name, tensor in model.proj.state_dict().items()}
            without_lora = {name: t for name, t in self.tensors.items() if not name.startswith(f"{LORA}.")}
            widened = _widened(without_lora, own)
            check_weights(str(self.directory), widened, own, model.config.vision_embedding_size)
            model.proj.load_state_dict(proj_tensors(widened))


def _widened(tensors: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors for a proj of as many inner units as ``own``, which maps every feature as before.

    New units read what the run's own random weights read, and nothing is read off them yet (after Net2Net, Chen et al.
    2016, which copies units instead). An adapter that is not narrower, or not whole, is returned as it is.
    """
    reads, bias, read_off = (f"{PROJ}.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight"))
    units = len(tensors.get(bias, own[bias]))
    new = len(own[bias]) - units
    shapes = {reads: (units, own[reads].shape[1]), read_off: (len(own[read_off]), units)}
    if new <= 0 or any(name not in tensors or tensors[name].shape != shape for name, shape in shapes.items()):
        return tensors
    fills = {reads: own[reads][units:], bias: own[bias][units:]}
    grown = {name: torch.cat([tensors[name], fill.to(tensors[name])]) for name, fill in fills.items()}
    column = tensors[read_off]
    return {**tensors, **grown, read_off: torch.cat([column, column.new_zeros(len(column), new)], dim=1)}

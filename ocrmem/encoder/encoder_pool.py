"""The encoder in several processes, each on a GPU of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from ocrmem.config import RunConfig
from ocrmem.encoder.device import pick_device
from ocrmem.encoder.loading import load_encoder
from ocrmem.encoder.page_encoding import batch_encoder
from ocrmem.environment import available_cores
from ocrmem.errors import DataError
from ocrmem.worker_pool import WorkerPool

# A tensor on its way: through shared memory it would need more of that than a container has.
Sent = tuple[torch.dtype, np.ndarray]


class EncoderPool(WorkerPool[Sent, Sent]):
    """The configured encoder in ``processes`` processes; on a CPU they share its cores.

    Args:
        config: of the run.
        processes: how many; more than there are GPUs share these.
        pages: most pages of a batch.
        kernels: as `batch_encoder` takes them.
    """

    def __init__(self, config: RunConfig, processes: int, pages: int, kernels: str) -> None:
        died = DataError.of(
            "encode",
            "a process with the encoder died, most likely because memory ran out",
            "Run it again with a lower --nproc; what is encoded is kept",
        )
        super().__init__(processes, _encoder, (config, processes, pages, kernels), died)

    def encode(self, batch: torch.Tensor) -> Future[Any]:
        """Hand out a batch of the encoder's `packed` pages; `features` gives what became of it."""
        return self.submit(_sent(batch))

    def features(self, future: Future[Any]) -> torch.Tensor:
        """Wait for a batch's vision tokens: [P, n, d] on the CPU, in the encoder's dtype.

        Raises:
            OcrMemError: as `load_encoder` and `batch_encoder`, or DataError where the process died.
        """
        return _received(self.result(future))


def _encoder(number: int, given: tuple[RunConfig, int, int, str]) -> Callable[[Sent], Sent]:
    config, processes, pages, kernels = given
    on_gpu = pick_device(config.model.device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(number % torch.cuda.device_count())
    else:
        torch.set_num_threads(max(1, available_cores() // processes))
    encode = batch_encoder(load_encoder(config), kernels, pages)

    def work(sent: Sent) -> Sent:
        batch = _received(sent)
        return _sent(encode(batch.pin_memory() if on_gpu else batch))

    return work


def _sent(tensor: torch.Tensor) -> Sent:
    return tensor.dtype, tensor.cpu().contiguous().view(torch.uint8).numpy()


def _received(sent: Sent) -> torch.Tensor:
    dtype, content = sent
    return torch.from_numpy(content).view(dtype)

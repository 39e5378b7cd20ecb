"""DeepSpeed ZeRO-3, where every process holds a part of the model: loading, reading and not copying it.

A partitioned parameter has the shape [0] outside the module that computes with it; ``ds_id`` marks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def is_partitioned(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "ds_id")


@contextmanager
def gathered(parameters: Iterable[torch.Tensor], writer: int | None = None) -> Iterator[None]:
    """Gather partitioned parameters for the length of the block; all processes enter it together.

    Args:
        parameters: those that are not partitioned are left alone.
        writer: the rank whose changes are kept; None: changes are lost.
    """
    partitioned = [parameter for parameter in parameters if is_partitioned(parameter)]
    if not partitioned:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(partitioned, modifier_rank=writer):
        yield


@contextmanager
def partition_while_loading(deepspeed: Any, dtype: torch.dtype) -> Iterator[None]:
    """Let ``from_pretrained`` in this block partition weights as it reads them, in their final precision.

    transformers does so while a ZeRO-3 configuration is alive: one process reads the file, and each keeps its share.
    Shares get the precision that the configuration names, which for the engine is float32 (see
    `ocrmem.config.deepspeed`), so loading has a configuration of its own.

    Args:
        deepspeed: TrainingArguments' ``hf_deepspeed_config``; None without DeepSpeed.
        dtype: precision of the frozen parts.
    """
    if deepspeed is None or not deepspeed.is_zero3():
        yield
        return
    from deepspeed import init_distributed
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, set_hf_deepspeed_config

    # The engine would join the group that torch has set up; the weights come before the engine.
    init_distributed(torch.distributed.get_backend(), auto_mpi_discovery=False, verbose=False)
    # Alive while it is the one that transformers looks at.
    own = HfDeepSpeedConfig(deepspeed.config | {"bf16": {"enabled": dtype is torch.bfloat16}})
    try:
        yield
    finally:
        set_hf_deepspeed_config(deepspeed)
        del own


def skip_broadcast_of_frozen(model: nn.Module) -> None:
    """Stop DDP and DeepSpeed from sending the frozen weights from the first process to all others at the start.

    Each process has read them from the same files, and `AdapterOnlyTrainer` compares their hashes. Receiving them
    would take minutes for a large model, and on a CPU would turn pages that the processes share into a copy each.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    frozen |= {name for name, _ in model.named_buffers()}
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.ds_optim_param = True  # type: ignore[attr-defined]  # DeepSpeed: not replicated from rank 0

"""Run by test_wrapped.py: check a model inside DDP or a DeepSpeed engine, on one process, and then train a step."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
os.environ.update(
    RANK="0",
    WORLD_SIZE="1",
    LOCAL_RANK="0",
    MASTER_ADDR="127.0.0.1",
    MASTER_PORT=str(PORT),
    DS_ACCELERATOR="cpu",
)

import torch
from support.faults import after, plain

from ocrmem import gradflow


def deepspeed_engine(parts, stage):
    import deepspeed
    import deepspeed.ops

    # The first use would compile an extension for minutes; one process needs none.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    settings = {
        "train_batch_size": 3,
        "zero_optimization": {"stage": stage, "overlap_comm": False},
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    }
    return deepspeed.initialize(model=parts.model, model_parameters=list(parts.proj.parameters()), config=settings)[0]


def main(wrapper: str) -> None:
    torch.distributed.init_process_group("gloo")
    parts = plain()
    if wrapper == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(parts.model)
    else:
        model = deepspeed_engine(parts, int(wrapper[-1]))
    print("RESULT healthy", gradflow.check(model, parts.batch).codes)
    after("proj", torch.Tensor.detach)(parts)
    print("RESULT detached", gradflow.check(model, parts.batch).codes)
    del parts.proj.forward
    loss = model(**parts.batch)["loss"]
    if wrapper == "ddp":
        loss.backward()
        print("RESULT stepped", all(p.grad is not None for p in parts.proj.parameters()))
    else:
        model.backward(loss)
        model.step()
        print("RESULT stepped", model.global_steps == 1)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])

"""Memory of the loss for an LM head of Qwen3-8B's shape: logits at every position, or at supervised ones only.

    python benchmarks/logits_memory.py [--rows 8] [--length 2048] [--answer 64]

Nothing of that size is allocated. The two ways to the loss, forward and backward, run on the meta device, where
tensors have shapes and no memory, and the bytes that are alive at one time are counted. That the count is right is
shown on a slice of the head which fits here (the same hidden size, 1/8 of the vocabulary, fewer positions): there
it stands beside how far the process's resident memory really rose.

Both ways end in the same loss: the head in bfloat16, cross entropy in float32, as `MEMModel.forward` has it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common.memory import PeakProcess, PeakTensors, mb

HIDDEN, VOCABULARY = 4096, 151_936
SLICE, SLICE_ROWS, SLICE_LENGTH, SLICE_ANSWER = VOCABULARY // 8, 2, 512, 64
Loss = Callable[["Batch"], torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """What the head is given.

    Attributes:
        hidden: bfloat16 [B, L, H]; needs a gradient.
        head: bfloat16 [V, H]; frozen.
        labels: long [B, L], -100 but for the last tokens of each row.
        supervised: rows and columns of the positions in front of those.
    """

    hidden: torch.Tensor
    head: torch.Tensor
    labels: torch.Tensor
    supervised: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, rows: int, length: int, answer: int, vocabulary: int, device: str) -> Batch:
        torch.manual_seed(0)
        labels = torch.full((rows, length), -100)
        labels[:, -answer:] = torch.randint(vocabulary, (rows, answer))
        row, column = (labels[:, 1:] != -100).nonzero(as_tuple=True)
        return cls(
            torch.randn(rows, length, HIDDEN, dtype=torch.bfloat16, device=device, requires_grad=True),
            torch.randn(vocabulary, HIDDEN, dtype=torch.bfloat16, device=device) * HIDDEN**-0.5,
            labels.to(device),
            (row.to(device), column.to(device)),
        )


def every_position(batch: Batch) -> torch.Tensor:
    """As a causal language model has it: all logits, shifted; cross entropy leaves out label -100."""
    logits = F.linear(batch.hidden, batch.head)[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)


def supervised_only(batch: Batch) -> torch.Tensor:
    """As `MEMModel.forward` has it: the hidden states of supervised positions gathered in front of the head.

    It gathers by a mask; the meta device, which has no values, needs the positions themselves.
    """
    logits = F.linear(batch.hidden[:, :-1][batch.supervised], batch.head).float()
    return F.cross_entropy(logits, batch.labels[:, 1:][batch.supervised])


def counted(way: Loss, batch: Batch) -> int:
    """The most bytes of tensors that loss and backward have alive at once, the inputs not counted."""
    with PeakTensors() as memory:
        way(batch).backward()
    batch.hidden.grad = None
    return memory.peak


def measured(way: Loss, batch: Batch) -> int | None:
    """How far resident memory rises over loss and backward."""
    with PeakProcess() as memory:
        way(batch).backward()
    batch.hidden.grad = None
    return memory.peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nothing to leave out: this takes seconds")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--answer", type=int, default=64, help="supervised tokens of a row")
    arguments = parser.parse_args()
    ways: dict[str, Loss] = {"every position": every_position, "supervised only": supervised_only}
    result: dict[str, dict[str, int | None]] = {}

    here = Batch.of(SLICE_ROWS, SLICE_LENGTH, SLICE_ANSWER, SLICE, "cpu")
    losses = [float(way(here).detach()) for way in ways.values()]
    if abs(losses[0] - losses[1]) > 1e-3:
        raise SystemExit(f"The ways do not compute the same loss: {losses}")
    print(f"slice: {SLICE_ROWS} x {SLICE_LENGTH} positions, {SLICE_ANSWER} supervised each, {SLICE} tokens, on the CPU")
    print(f"{'':18}{'counted MB':>12}{'resident MB':>13}")
    for name, way in ways.items():
        count, risen = counted(way, here), measured(way, here)
        result[f"slice, {name}"] = {"counted": count, "resident": risen}
        print(f"{name:18}{mb(count):>12}{mb(risen):>13}")

    whole = Batch.of(arguments.rows, arguments.length, arguments.answer, VOCABULARY, "meta")
    print(
        f"\nQwen3-8B's head: {arguments.rows} x {arguments.length} positions, {arguments.answer} supervised each, "
        f"{VOCABULARY} tokens, counted on the meta device"
    )
    for name, way in ways.items():
        count = counted(way, whole)
        result[name] = {"counted": count}
        print(f"{name:18}{mb(count):>12} MB")
    full, ours = (result[name]["counted"] or 0 for name in ways)
    print(f"saved: {(full - ours) / 2**30:.1f} GiB, {full / ours:.0f} times less")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

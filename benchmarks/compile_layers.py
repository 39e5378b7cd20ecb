"""A step through a frozen language model of SmolLM2-135M's shape: as it is, and with `train.compile_layers`.

    python benchmarks/compile_layers.py [--repeats 5]

Forward and backward in bfloat16 with attention as `train` has it on a CPU, random weights; what a batch takes, in
processor seconds of one thread, the two in turn. Needs a C++ compiler; compiling, half a minute once, is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
from common.clock import load, pin_to_one_core, seconds_of
from transformers import LlamaConfig, LlamaForCausalLM

from ocrmem.environment import missing_to_compile
from ocrmem.model.compiled_layers import compile_layers

SHAPES = ((12, 100), (24, 100), (48, 100))  # rows x tokens
ANSWER = 8  # tokens at the end of a row that have a loss


def language_model() -> LlamaForCausalLM:
    """SmolLM2-135M's shape with random weights, frozen."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).to(torch.bfloat16).requires_grad_(False).eval()


def step(base: LlamaForCausalLM, rows: int, length: int) -> torch.Tensor:
    """Go forward and backward to the embeddings; return their gradient."""
    source = torch.Generator().manual_seed(rows)
    embedded = torch.randn(rows, length, base.config.hidden_size, generator=source, dtype=torch.bfloat16)
    embedded.requires_grad_(True)
    mask = torch.ones(rows, length, dtype=torch.long)
    hidden = base.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state
    base.lm_head(hidden[:, -ANSWER:]).float().logsumexp(-1).mean().backward()
    assert embedded.grad is not None
    return embedded.grad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    if missing := missing_to_compile(on_gpu=False):
        print(f"not to be measured here: {missing}")
        return 2
    torch.set_num_threads(1)
    print(f"{load()}, {pin_to_one_core()}, torch {torch.__version__}")
    plain, compiled = language_model(), language_model()
    compile_layers(compiled, on_gpu=False)
    print(f"\n{'rows x tokens':>14}{'as it is':>10}{'compiled':>10}{'times':>7}{'gradient off by':>17}")
    result = []
    for rows, length in SHAPES:
        ways = [lambda base=base, n=rows, t=length: step(base, n, t) for base in (plain, compiled)]  # type: ignore[misc]
        expected, found = (way().float() for way in ways)
        off = float((found - expected).norm() / expected.norm())
        before, after = seconds_of(ways, repeats)
        batch = f"{rows} x {length}"
        print(f"{batch:>14}{before:>8.2f} s{after:>8.2f} s{before / after:>7.2f}{off:>17.4f}", flush=True)
        result.append({"rows": rows, "length": length, "plain": before, "compiled": after, "gradient_off": off})
    print(json.dumps(result))
    return 0 if all(row["compiled"] < row["plain"] for row in result) else 1


if __name__ == "__main__":
    sys.exit(main())

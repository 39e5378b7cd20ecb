"""Count the parameters by part, and check that proj alone is trained, or proj and LoRA where a model has it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ocrmem.errors import ModelError, Problem
from ocrmem.facts import LORA, PROJ

# Attribute of the model -> what the table calls it.
PARTS = {"base_llm_model": "base", "ocr_embed": "encoder", PROJ: "proj"}
_REMEDY = "Freeze everything but proj: model.requires_grad_(False); model.proj.requires_grad_(True)"


def lora_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return a model's LoRA weights by their names in an adapter's file; none of any but a `MEMModel` that has LoRA."""
    found: dict[str, nn.Parameter] = getattr(model, "lora_weights", dict)()
    return found


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained: proj's parameters by their names in it, and LoRA's weights by theirs."""
    return {**dict(model.get_submodule(PROJ).named_parameters()), **lora_of(model)}


def trained_parts(model: nn.Module) -> list[str]:
    """Return the parts that are trained, as `gradflow.check` takes them."""
    return [PROJ, "*.lora_?.*"] if lora_of(model) else [PROJ]


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part of the model.

    Attributes:
        part: "base", "encoder", "proj", "lora" or "other" (whatever sits beside the three).
        trainable: parameters with ``requires_grad``.
        total: all parameters; a tensor shared by two names counts once.
    """

    part: str
    trainable: int
    total: int


def count_parameters(model: nn.Module) -> list[PartCount]:
    """Count parameters by part: base, encoder, proj, and where there are some, lora and other.

    Args:
        model: a module with some of the attributes ``base_llm_model``, ``ocr_embed`` and ``proj``; also on
            the meta device. Parameters that DeepSpeed ZeRO-3 has partitioned count with their full size.
    """
    lora = {id(weight) for weight in lora_of(model).values()}
    counts = {part: [0, 0] for part in (*PARTS.values(), LORA, "other")}
    for name, parameter in model.named_parameters():
        count = counts[LORA if id(parameter) in lora else PARTS.get(name.split(".")[0], "other")]
        size = getattr(parameter, "ds_numel", parameter.numel())
        count[0] += size if parameter.requires_grad else 0
        count[1] += size
    return [PartCount(part, *count) for part, count in counts.items() if count[1] or part in PARTS.values()]


def check_trainable(model: nn.Module) -> None:
    """Check that every parameter of proj, and of the LoRA of a model that has it, is trained, and no other one.

    Raises:
        ModelError: names the parameters that are on the wrong side.
    """
    lora = {id(weight) for weight in lora_of(model).values()}
    wrong: dict[str, list[str]] = {"is trainable": [], "is frozen": []}
    for name, parameter in model.named_parameters():
        trained = name.split(".")[0] == PROJ or id(parameter) in lora
        if parameter.requires_grad != trained:
            wrong["is frozen" if trained else "is trainable"].append(name)
    meant = "proj and LoRA are" if lora else "proj is"
    problems = [
        Problem(_shown(names), f"{what}, but only {meant} to be trained", _REMEDY)
        for what, names in wrong.items()
        if names
    ]
    if problems:
        raise ModelError(problems)


def summary_line(counts: list[PartCount]) -> str:
    """Return the ancestor's (and PEFT's) line: ``trainable params: 1 || all params: 2 || trainable%: 50.0000%``."""
    trainable, total = sum(c.trainable for c in counts), sum(c.total for c in counts)
    share = 100 * trainable / total if total else 0.0
    return f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {share:.4f}%"


def parameter_report(counts: list[PartCount]) -> str:
    """Return `summary_line` and under it a table with one line a part."""
    width = max(len("all"), *(len(f"{c.total:,}") for c in counts))
    lines = [summary_line(counts), f"  {'part':<8} {'trainable':>{max(width, 9)}} {'all':>{width}}"]
    lines += [f"  {c.part:<8} {c.trainable:>{max(width, 9)},} {c.total:>{width},}" for c in counts]
    return "\n".join(lines)


def _shown(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

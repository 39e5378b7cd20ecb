"""Every fault that the gradient-flow doctor must tell apart, injected the same way into any three-part model.

A fault works on the three parts, whatever their class: the frozen encoder, proj, the frozen language model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from support.models import PAGE, PLACEHOLDER, small_model
from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclass
class Parts:
    """A model in one piece and its parts, with the batch it is checked on."""

    model: nn.Module
    encoder: nn.Module
    proj: nn.Module
    llm: nn.Module
    batch: dict[str, Any]
    first_layer: nn.Module  # of the encoder: without its weights nothing depends on the page
    text_batch: dict[str, Any] = field(default_factory=dict)  # the same without memory


class ThreeParts(nn.Module):
    """The plain model: any user's encoder, adapter and language model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6).requires_grad_(False)
        self.proj = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8))
        self.llm = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 5)).requires_grad_(False)
        self.prompt = nn.Parameter(torch.randn(8), requires_grad=False)

    def forward(self, labels: torch.Tensor, pages: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        memory = torch.zeros(*labels.shape, 8) if pages is None else self.proj(self.encoder(pages))
        padded = torch.cat([memory, torch.zeros(len(labels), 1, 8)], dim=1)
        scores = self.llm(padded + self.prompt)[:, :-1]
        return {"loss": F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=-100)}


def plain() -> Parts:
    """A `ThreeParts` and a batch of three samples."""
    torch.manual_seed(0)
    model = ThreeParts()
    labels = torch.randint(0, 5, (3, 7))
    batch = {"pages": torch.randn(3, 7, 4), "labels": labels}
    return Parts(model, model.encoder, model.proj, model.llm, batch, model.encoder, {"labels": labels})


def memory_model() -> Parts:
    """A small MEMModel with its encoder, and a batch of two samples with a page each, padded on the right."""
    torch.manual_seed(0)
    model = small_model()
    pages = torch.where(torch.rand(2, 1, PAGE, PAGE) < 0.2, -1.0, 1.0).expand(-1, 3, -1, -1).contiguous()
    memory = [PLACEHOLDER] * 64
    text = torch.randint(8, 64, (2, 10))
    ids = torch.cat([torch.tensor([memory, memory]), text], dim=1)
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    labels = torch.where(torch.arange(ids.shape[1]) > 68, ids, -100)
    labels[mask == 0] = -100
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": pages}
    bare = {"input_ids": text, "attention_mask": mask[:, 64:], "labels": labels[:, 64:]}
    assert model.ocr_embed is not None
    first = next(m for m in model.ocr_embed.modules() if isinstance(m, nn.Conv2d))
    return Parts(model, model.ocr_embed, model.proj, model.base_llm_model.base_model, batch, first, bare)


Inject = Callable[[Parts], object]


@dataclass(frozen=True)
class FaultCase:
    """A fault and how it must be named.

    Attributes:
        name: for the test's id.
        code: the finding's.
        part: the module that the finding's place lies in: "encoder", "proj", "llm" or "" for any.
        inject: puts it into the model or the batch.
        evidence: words that the evidence must hold.
        options: passed to `gradflow.check`.
    """

    name: str
    code: str
    part: str
    inject: Inject
    evidence: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def wrapping(part: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Inject:
    """Replace a part's forward by ``wrapper(forward)``."""

    def inject(parts: Parts) -> None:
        module = getattr(parts, part)
        module.forward = wrapper(module.forward)

    return inject


def after(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Inject:
    """Pass a part's output through ``change``."""
    return wrapping(part, lambda forward: lambda *a, **k: change(forward(*a, **k)))


def hide_in_a_dict(forward: Callable[..., Any]) -> Callable[..., Any]:
    def hidden(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(
            lambda box: forward(*box["args"], **box["kwargs"]),
            {"args": args, "kwargs": kwargs},
            use_reentrant=True,
        )

    return hidden


def build_proj_in_inference_mode(parts: Parts) -> None:
    with torch.inference_mode():
        parts.proj = parts.model.proj = copy.deepcopy(parts.model.proj)  # type: ignore[assignment]


def forget_the_page(parts: Parts) -> None:
    with torch.no_grad():
        parts.first_layer.weight.zero_()  # type: ignore[union-attr,operator]


def mask_all_labels(parts: Parts) -> None:
    parts.batch["labels"] = torch.full_like(parts.batch["labels"], -100)


def leave_memory_out(parts: Parts) -> None:
    parts.batch = parts.text_batch


def thaw_while_running(forward: Callable[..., Any]) -> Callable[..., Any]:
    def thawing(*args: Any, **kwargs: Any) -> Any:
        next(forward.__self__.parameters()).requires_grad_(True)  # type: ignore[attr-defined]
        return forward(*args, **kwargs)

    return thawing


def poison(parts: Parts) -> None:
    with torch.no_grad():
        last = [p for p in parts.llm.parameters() if p.dim() == 2][-1]
        last.fill_(float("nan"))


def halve_a_layer(parts: Parts) -> None:
    [m for m in parts.llm.modules() if isinstance(m, nn.Linear)][-1].to(torch.bfloat16)


def through_numpy(value: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(value.detach().numpy().copy())


FAULTS = [
    FaultCase(
        "encoder output from inference_mode",
        "GF001",
        "encoder",
        wrapping("encoder", torch.inference_mode()),
        "inference",
    ),
    FaultCase("proj frozen", "GF002", "proj", lambda p: p.proj.requires_grad_(False), "requires_grad is False"),
    FaultCase("proj under no_grad", "GF003", "proj", wrapping("proj", torch.no_grad()), "grad mode off"),
    FaultCase("proj under inference_mode", "GF004", "proj", wrapping("proj", torch.inference_mode()), "inference mode"),
    FaultCase("language model under no_grad", "GF005", "llm", wrapping("llm", torch.no_grad()), "grad mode off"),
    FaultCase(
        "language model under inference_mode", "GF005", "llm", wrapping("llm", torch.inference_mode()), "inference mode"
    ),
    FaultCase(
        "detach between proj and language model", "GF006", "proj", after("proj", torch.Tensor.detach), "Tensor.detach"
    ),
    FaultCase(".data between proj and language model", "GF006", "proj", after("proj", lambda t: t.data), "Tensor.data"),
    FaultCase("no memory in the batch", "GF007", "proj", leave_memory_out, " called"),
    FaultCase(
        "no history over the threshold",
        "GF007",
        "proj",
        leave_memory_out,
        "no history exceeds context_threshold",
        {"longest_history": 6, "context_threshold": 8},
    ),
    FaultCase(
        "truncation cuts the memory away",
        "GF007",
        "proj",
        leave_memory_out,
        "truncation to max_seq_length",
        {"longest_history": 900, "context_threshold": 4, "max_seq_length": "as long as the batch"},
    ),
    FaultCase(
        "re-entrant checkpoint, input without grad",
        "GF008",
        "proj",
        wrapping("proj", lambda f: lambda x: checkpoint(f, x, use_reentrant=True)),
        "use_reentrant=True",
    ),
    FaultCase(
        "re-entrant checkpoint, grad hidden in a dict",
        "GF009",
        "llm",
        wrapping("llm", hide_in_a_dict),
        "use_reentrant=True",
    ),
    FaultCase(
        "detach().requires_grad_(True) repair",
        "GF010",
        "proj",
        after("proj", lambda t: t.detach().requires_grad_(True)),
        "new graph",
    ),
    FaultCase("proj built in inference_mode", "GF011", "proj", build_proj_in_inference_mode, "inference tensors"),
    FaultCase("all labels -100", "GF012", "", mask_all_labels, "-100"),
    FaultCase("features do not depend on the page", "GF013", "", forget_the_page, "from page to page"),
    FaultCase("dtypes differ", "GF014", "llm", halve_a_layer, "bfloat16"),
    FaultCase(
        "something besides proj trainable",
        "GF015",
        "llm",
        lambda p: p.llm.requires_grad_(True),
        "requires_grad is True",
    ),
    FaultCase(
        "frozen parameters receive gradients", "GF016", "llm", wrapping("llm", thaw_while_running), "gradient arrived"
    ),
    FaultCase("vanishing gradient", "GF017", "proj", after("proj", lambda t: t * 1e-30), "largest gradient"),
    FaultCase("non-finite weights", "GF018", "llm", poison, "not finite"),
    FaultCase("value leaves torch", "GF019", "proj", after("proj", through_numpy), "outside torch"),
]

HEALTHY: dict[str, Inject] = {
    "untouched": lambda parts: None,
    "encoder under no_grad": wrapping("encoder", torch.no_grad()),
    "encoder under inference_mode, then cloned": wrapping(
        "encoder", lambda f: lambda x: torch.inference_mode()(f)(x).clone()
    ),
    "zero pads": lambda parts: None,
    "everything in eval()": lambda parts: parts.model.eval(),
    "frozen parts in eval()": lambda parts: (parts.encoder.eval(), parts.llm.eval()),
    "bf16 autocast": lambda parts: wrapping("model", torch.autocast("cpu", torch.bfloat16))(parts),
    "non-reentrant checkpoint of proj": wrapping("proj", lambda f: lambda x: checkpoint(f, x, use_reentrant=False)),
    "one sample only": lambda parts: parts.batch.update({k: v[:1] for k, v in parts.batch.items()}),
    "proj's last layer starts at zero": lambda parts: (
        nn.init.zeros_([p for p in parts.proj.parameters() if p.dim() == 2][-1]) is None
    ),
}

BUILDERS: dict[str, Callable[[], Parts]] = {"plain": plain, "memory_model": memory_model}

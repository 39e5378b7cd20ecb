"""Small models as other people write them, healthy and sick, and what the gradient doctor is to say about each.

A `Guest` has a frozen encoder, a trained proj and a frozen language model, as many users' models do; each case
changes one thing, by a function that gets the model and the value at that point.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

Made = tuple[nn.Module, dict[str, Any]]
Change = Callable[[Any, torch.Tensor], torch.Tensor]
PROJ = ["proj.0.weight", "proj.0.bias", "proj.2.weight", "proj.2.bias"]


class Guest(nn.Module):
    """Pages go through encoder, proj and llm to a loss over labels.

    Args:
        proj: the trained part.
        project: in place of ``model.proj(features)``.
        between: what happens to proj's output.
        loss: in place of cross entropy over scores ``[batch, n, 5]`` and labels ``[batch, n]``.
        output: makes forward's result of the loss.
    """

    def __init__(
        self,
        proj: nn.Module | None = None,
        project: Change = lambda model, x: model.proj(x),
        between: Change = lambda model, m: m,
        loss: Callable[[Any, torch.Tensor, torch.Tensor], Any] = lambda model, s, y: cross_entropy(s, y),
        output: Callable[[Any], Any] = lambda loss: {"loss": loss},
    ) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6).requires_grad_(False)
        self.proj = proj or nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8))
        self.llm = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 5)).requires_grad_(False)
        self.steps = (project, between, loss, output)

    def forward(self, pages: torch.Tensor, labels: torch.Tensor) -> Any:
        project, between, loss, output = self.steps
        memory = between(self, project(self, self.encoder(pages)))
        return output(loss(self, self.llm(memory), labels))


def cross_entropy(scores: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), **options)


def batch() -> dict[str, Any]:
    return {"pages": torch.randn(3, 7, 4), "labels": torch.randint(0, 5, (3, 7))}


@dataclass(frozen=True)
class GuestCase:
    """A model and what is to be said about it.

    Attributes:
        make: returns (model, batch).
        codes: of the findings, in order; none for a healthy model.
        trainable: as `gradflow.check` takes it.
        within: the function, class or source file whose lines the first finding's place names.
        module: of the first finding.
        says, remedy, never: words of the first finding's evidence and remedy; and words that no finding may hold.
    """

    make: Callable[[], Made]
    codes: tuple[str, ...] = ()
    trainable: str | list[str] = "proj"
    within: Any = None
    module: str | None = None
    says: str = ""
    remedy: str = ""
    never: str = ""


def guest(change: Callable[[Guest], object] = lambda model: None, **parts: Any) -> Callable[[], Made]:
    def make() -> Made:
        torch.manual_seed(0)
        model = Guest(**{name: part() if name == "proj" else part for name, part in parts.items()})
        change(model)
        return model, batch()

    return make


# Custom autograd functions, as fused kernels are: their results are written where torch does not look.


class Kernel(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        out.numpy()[...] = x.detach().numpy() * 2
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * 2


class FusedLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, y = scores.detach().numpy(), labels.numpy()
        p = np.exp(x - x.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        ctx.gradient = torch.from_numpy((p - np.eye(x.shape[-1])[y]) / y.size).float()
        return torch.tensor(float(-np.log(np.take_along_axis(p, y[..., None], -1)).mean()))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * ctx.gradient, None


class FusedNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return torch.from_numpy(x.detach().numpy() * weight.detach().numpy())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum(dim=(0, 1))


class Forgetful(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return None


class Unfinished(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        raise NotImplementedError("the kernel has no backward yet")


captured = Kernel.apply  # before any check can see it


def through_the_kernel(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return Kernel.apply(m)  # type: ignore[no-any-return]


def forgetting(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return Forgetful.apply(m)  # type: ignore[no-any-return]


def kernel_under_no_grad(model: Guest, m: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return Kernel.apply(m)  # type: ignore[no-any-return]


# Parts.


class LowRank(nn.Module):
    """LoRA as one writes it oneself: the second factor starts at zero."""

    def __init__(self, scale: float = 1.0, first: float = 1.0) -> None:
        super().__init__()
        self.base = nn.Linear(6, 8).requires_grad_(False)
        self.a, self.b = nn.Parameter(first * torch.randn(2, 6)), nn.Parameter(torch.zeros(8, 2))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + scaled(x @ self.a.T @ self.b.T, self.scale)


def scaled(value: torch.Tensor, factor: float) -> torch.Tensor:
    return value * factor


class Gated(nn.Module):
    """A block behind a gate that starts shut: tanh(0)."""

    def __init__(self, trained_gate: bool = True) -> None:
        super().__init__()
        self.inner, self.gate = nn.Linear(6, 8), nn.Parameter(torch.zeros(1), requires_grad=trained_gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, (0, 2)) + gated(self.inner(x), self.gate)


def gated(value: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return value * gate.tanh()


class MadeInForward(nn.Module):
    """Makes its layer when it first sees its input; or anew each time."""

    def __init__(self, each_time: bool = False) -> None:
        super().__init__()
        self.each_time = each_time
        if each_time:
            self.layer = nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.each_time or not hasattr(self, "layer"):
            self.layer = nn.Linear(x.shape[-1], 8)
        return self.layer(x)  # type: ignore[no-any-return]


class Experts(nn.Module):
    """Two experts of which each token takes one; ``only`` sends all to the first."""

    def __init__(self, only: bool = False) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(6, 8), nn.Linear(6, 8)])
        self.only = only

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.ones_like(x[..., :1]) if self.only else (x[..., :1] > 0).float()
        return self.experts[0](x) * first + self.experts[1](x) * (1 - first)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention of one query over the pages; softmax does not see the bias of the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]  # type: ignore[no-any-return]


def convolution_before_batch_norm() -> nn.Module:
    class Convolved(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.mT).mT

    return Convolved(nn.Conv1d(6, 8, 1), nn.BatchNorm1d(8), nn.Conv1d(8, 8, 1))


def dead_relu() -> nn.Module:
    proj = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8))
    nn.init.constant_(proj[0].bias, -1e4)  # type: ignore[arg-type]
    return proj


def saturated() -> nn.Module:
    proj = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8))
    nn.init.constant_(proj[0].bias, 1e3)  # type: ignore[arg-type]
    return proj


# Changes to a model or its values.


def tie_the_head(model: Guest) -> None:
    model.proj.requires_grad_(False)
    model.embed, model.lm_head = nn.Embedding(5, 8), nn.Linear(8, 5, bias=False)
    model.lm_head.weight = model.embed.weight
    model.llm = nn.Identity()  # type: ignore[assignment]
    model.steps = (*model.steps[:2], lambda m, h, y: cross_entropy(m.lm_head(h), y), model.steps[3])


def with_queries(model: Guest) -> None:
    """Query tokens, a bare parameter, are trained beside proj."""
    model.queries = nn.Parameter(torch.randn(1, 7, 8))
    model.steps = (model.steps[0], lambda m, x: x * m.queries, *model.steps[2:])


def queries_unused(model: Guest) -> None:
    model.queries = nn.Parameter(torch.randn(1, 7, 8))


def queries_detached(model: Guest) -> None:
    with_queries(model)
    model.steps = (model.steps[0], detached_queries, *model.steps[2:])


def detached_queries(model: Any, m: torch.Tensor) -> torch.Tensor:
    return m + model.queries.detach()  # type: ignore[no-any-return]


def dead_queries(model: Guest) -> None:
    with_queries(model)
    model.steps = (model.steps[0], lambda m, x: x + scaled(m.queries, 0.0), *model.steps[2:])


def a_copy_runs(model: Guest) -> None:
    model.original = copy.deepcopy(model.proj).requires_grad_(False)
    model.steps = (lambda m, x: m.original(x), *model.steps[1:])


def a_teacher_helps(model: Guest) -> None:
    """A frozen copy of the same shape runs as well."""
    model.teacher = copy.deepcopy(model.proj).requires_grad_(False)
    model.steps = (model.steps[0], model.steps[1], distilled, model.steps[3])
    model.encoder.register_forward_hook(lambda _m, _i, features: setattr(model, "features", features))


def distilled(model: Any, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        target = model.llm(model.teacher(model.features))
    return cross_entropy(scores, labels) + F.mse_loss(scores, target.detach() + 1)


def embed_sparsely(model: Guest) -> None:
    model.proj = nn.Embedding(9, 8, sparse=True)  # type: ignore[assignment]
    model.steps = (lambda m, x: m.proj((x.abs() * 9).long().amax(-1).clamp(0, 8)), *model.steps[1:])


def two_with_that_name(model: Guest) -> None:
    model.llm[1] = nn.ModuleDict({"proj": nn.Linear(8, 8)}).requires_grad_(False)  # type: ignore[operator]
    model.llm[1].forward = lambda x: model.llm[1]["proj"](x)  # type: ignore[operator,union-attr,index]


def twice(model: Guest, x: torch.Tensor) -> torch.Tensor:
    return model.proj(x) + model.proj(x.flip(1))  # type: ignore[no-any-return]


def straight_through(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return m + (m.round() - m).detach()


def rounded(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return m.round()


def counted(model: Guest, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (scores.argmax(-1) != labels).float().mean()


def as_a_number(model: Guest, scores: torch.Tensor, labels: torch.Tensor) -> float:
    return cross_entropy(scores, labels).item()


def rebuilt(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return torch.tensor(m)


def written_in_place(model: Guest, m: torch.Tensor) -> torch.Tensor:
    padded = torch.zeros(3, 9, 8)
    padded[:, :7] = m
    padded[:, 7:].copy_(m[:, :2])
    return padded.relu_()[:, :7]


def scattered(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(m).masked_scatter(torch.ones_like(m).bool(), m)


def scattered_nowhere(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(m).masked_scatter(torch.zeros_like(m).bool(), m)


def watched(model: Guest, m: torch.Tensor) -> torch.Tensor:
    """Logs what it sees, as training code does."""
    with torch.no_grad():
        model.seen = {"norm": m.norm().item(), "values": m.detach().numpy().copy(), "sign": bool(m.sum() > 0)}
    return m


def seen_and_dropped(model: Guest, m: torch.Tensor) -> torch.Tensor:
    watched(model, m)
    return torch.ones_like(m)


def spectrum(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return torch.fft.ifft(torch.fft.fft(m) * 1j).imag


def each_on_its_own(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return torch.func.vmap(lambda row: F.layer_norm(row, (8,)))(m)


def logarithm(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return m.log()


def length(model: Guest, m: torch.Tensor) -> torch.Tensor:
    return (m - m.detach()).norm(dim=-1, keepdim=True) + m


def weights_shrink(model: Guest, x: torch.Tensor) -> torch.Tensor:
    model.proj[0].weight.mul_(0.99)  # type: ignore[index]
    return model.proj(x)  # type: ignore[no-any-return]


def saved_and_changed(model: Guest, m: torch.Tensor) -> torch.Tensor:
    inner = m.exp()
    result = inner * 1.0
    inner.add_(1)
    return result


def freed(model: Guest) -> None:
    """The first features' graph is kept from an earlier step."""
    kept = model.proj(torch.randn(3, 7, 6))
    kept.sum().backward()
    model.zero_grad()
    model.steps = (lambda m, x: kept.exp(), *model.steps[1:])


def nan_weights(model: Guest) -> None:
    nn.init.constant_(model.llm[2].weight, torch.nan)  # type: ignore[index,arg-type]


def reentrant(model: Guest, x: torch.Tensor) -> torch.Tensor:
    return checkpoint(model.proj, x.requires_grad_(True), use_reentrant=True)  # type: ignore[no-any-return]


def nan_page() -> Made:
    model, values = guest()()
    values["pages"][1, 2] = torch.nan
    return model, values


def vanishing(model: Guest, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.relu(cross_entropy(scores, labels) - 1e3)


HEALTHY = {
    "a fused kernel in the model's forward": GuestCase(guest(between=through_the_kernel)),
    "a fused kernel whose apply was kept under another name": GuestCase(guest(between=lambda _, m: captured(m))),
    "a fused loss": GuestCase(guest(loss=lambda _, s, y: FusedLoss.apply(s, y))),
    "a fused norm that takes a trained weight": GuestCase(
        guest(
            lambda model: setattr(model, "scale", nn.Parameter(torch.ones(8))),
            between=lambda model, m: FusedNorm.apply(m, model.scale),
        ),
        trainable=["proj", "scale"],
    ),
    "a low-rank update whose last factor is zero": GuestCase(guest(proj=LowRank), trainable=["proj.a", "proj.b"]),
    "a gate that starts shut": GuestCase(guest(proj=Gated)),
    "a lazy layer": GuestCase(guest(proj=lambda: nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d()))),
    "a layer made by the first forward": GuestCase(guest(proj=MadeInForward)),
    "a head tied to the embedding": GuestCase(guest(tie_the_head), trainable="lm_head"),
    "a bare parameter": GuestCase(
        guest(lambda m: (with_queries(m), m.proj.requires_grad_(False))), trainable="queries"
    ),
    "two parts, a module and a parameter": GuestCase(guest(with_queries), trainable=["proj", "queries"]),
    "a pattern for two layers": GuestCase(guest(), trainable="proj.[02]"),
    "a name beside the same name deeper down, given in full": GuestCase(guest(two_with_that_name)),
    "sparse gradients of an embedding": GuestCase(guest(embed_sparsely)),
    "weight norm": GuestCase(guest(proj=lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)))),
    "spectral norm": GuestCase(guest(proj=lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8)))),
    "attention with a bias on its keys": GuestCase(guest(proj=Attention)),
    "a bias before batch norm": GuestCase(guest(proj=convolution_before_batch_norm)),
    "an LSTM": GuestCase(guest(proj=Recurrent)),
    "experts of which every one has tokens": GuestCase(guest(proj=Experts)),
    "a straight-through estimator": GuestCase(guest(between=straight_through)),
    "a module that runs twice": GuestCase(guest(project=twice)),
    "a frozen teacher of the same shape": GuestCase(guest(a_teacher_helps)),
    "values logged on their way": GuestCase(guest(between=watched)),
    "values written in place into a larger tensor": GuestCase(guest(between=written_in_place)),
    "values scattered over placeholders": GuestCase(guest(between=scattered)),
    "complex numbers": GuestCase(guest(between=spectrum)),
    "vmap": GuestCase(guest(between=each_on_its_own)),
    "float64": GuestCase(lambda: (lambda m, b: (m.double(), b | {"pages": b["pages"].double()}))(*guest()())),
    "a re-entrant checkpoint whose input needs a gradient": GuestCase(guest(project=reentrant)),
    "the loss first in a tuple": GuestCase(guest(output=lambda loss: (loss, "scores"))),
    "the loss as an attribute, of one element": GuestCase(guest(output=lambda loss: SimpleNamespace(loss=loss[None]))),
}

SICK = {
    "a backward that returns nothing": GuestCase(
        guest(between=forgetting), ("GF019",), within=forgetting, says="Forgetful", remedy="Forgetful"
    ),
    "a backward that raises": GuestCase(
        guest(between=lambda _, m: Unfinished.apply(m)), ("GF021",), within=Unfinished, says="no backward yet"
    ),
    "a fused kernel under no_grad": GuestCase(
        guest(between=kernel_under_no_grad), ("GF005",), within=kernel_under_no_grad, says="Kernel"
    ),
    "proj under no_grad before a fused kernel": GuestCase(
        guest(project=torch.no_grad()(lambda model, x: model.proj(x)), between=through_the_kernel),
        ("GF003",), module="proj.0",
    ),
    "a dead ReLU": GuestCase(guest(proj=dead_relu), ("GF017",), module="proj.1", says="relu"),
    "a saturated sigmoid": GuestCase(guest(proj=saturated), ("GF017",), module="proj.1", says="sigmoid"),
    "a dropout of 1": GuestCase(
        guest(proj=lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(1.0), nn.Linear(8, 8))),
        ("GF017",), module="proj.1", says="dropout",
    ),
    "a factor of zero": GuestCase(guest(between=lambda _, m: 1 + scaled(m, 0.0)), ("GF017",), within=scaled),
    "a low-rank update with a scale of zero": GuestCase(
        guest(proj=lambda: LowRank(scale=0.0)), ("GF017", "GF017"), trainable=["proj.a", "proj.b"], within=scaled
    ),
    "a low-rank update with both factors zero": GuestCase(
        guest(proj=lambda: LowRank(first=0.0)), ("GF017", "GF017"), trainable=["proj.a", "proj.b"], within=LowRank
    ),
    "a shut gate that is not trained": GuestCase(
        guest(proj=lambda: Gated(trained_gate=False)), ("GF017",), trainable="proj.inner", within=gated
    ),
    "an expert without a token": GuestCase(guest(proj=lambda: Experts(only=True)), ("GF017",), says="experts.1.weight"),
    "rounded values": GuestCase(guest(between=rounded), ("GF017",), within=rounded, says="round"),
    "values scattered nowhere": GuestCase(guest(between=scattered_nowhere), ("GF017",), within=scattered_nowhere),
    "a loss that is flat": GuestCase(guest(loss=vanishing), ("GF017",), within=vanishing, says="relu"),
    "one of two parts is dead": GuestCase(
        guest(dead_queries), ("GF017",), trainable=["proj", "queries"], within=scaled, says="queries"
    ),
    "one of two parts is not used": GuestCase(
        guest(queries_unused), ("GF007",), trainable=["proj", "queries"], module="queries", says="queries"
    ),
    "one of two parts is detached": GuestCase(
        guest(queries_detached), ("GF006",), trainable=["proj", "queries"], within=detached_queries
    ),
    "a copy runs in proj's place": GuestCase(
        guest(a_copy_runs), ("GF007",), says="original, of the same shape, ran", remedy="original", never="memory"
    ),
    "proj made anew in every forward": GuestCase(
        guest(proj=lambda: MadeInForward(each_time=True)), ("GF007",), says="another parameter", remedy="once"
    ),
    "proj's output is looked at and dropped": GuestCase(
        guest(between=seen_and_dropped), ("GF019",), within=watched, never="memory"
    ),
    "proj's output is dropped": GuestCase(
        guest(between=lambda _, m: torch.ones_like(m)), ("GF007",), says="does not reach the loss", never="memory"
    ),
    "accuracy in the loss's place": GuestCase(guest(loss=counted), ("GF019",), within=counted, says="argmax"),
    "the loss is a number": GuestCase(guest(loss=as_a_number), ("GF019",), within=as_a_number, says="Tensor.item"),
    "a tensor built from a tensor": GuestCase(guest(between=rebuilt), ("GF006",), within=rebuilt, says="torch.tensor"),
    "a detached loss": GuestCase(guest(loss=lambda _, s, y: cross_entropy(s, y).detach()), ("GF006",), says="detach"),
    "a weight changed in forward": GuestCase(
        guest(project=weights_shrink), ("GF023",), within=weights_shrink, says="leaf", remedy="no_grad"
    ),
    "a saved tensor changed": GuestCase(
        guest(between=saved_and_changed), ("GF021",), within=saved_and_changed, says="exp"
    ),
    "a graph that an earlier step freed": GuestCase(guest(freed), ("GF021",), says="second time"),
    "NaN in the input": GuestCase(
        nan_page, ("GF018",), module="pages", says="the input 'pages'", remedy="data", never="learning rate"
    ),
    "NaN in a weight": GuestCase(
        guest(nan_weights), ("GF018",), module="llm.2", says="llm.2.weight is not finite", never="learning rate"
    ),
    "the logarithm of a negative number": GuestCase(
        guest(between=logarithm), ("GF018",), within=logarithm, says="log", never="learning rate"
    ),
    "the derivative of a norm at zero": GuestCase(
        guest(between=lambda _, m: (m - m.mean() * 0 - m).pow(2).sum(-1, keepdim=True).sqrt() + m), ("GF018",),
        says="sqrt", remedy="sqrt", never="learning rate",
    ),
}  # fmt: skip

"""The claims of the ancestor's repair reports, each run; docs/gradient-flow.md refers to these tests."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.faults import Parts, after, memory_model, plain, wrapping

from ocrmem import gradflow


def gradients(parts: Parts) -> list[torch.Tensor | None]:
    output = parts.model(**parts.batch)
    (output["loss"] if isinstance(output, dict) else output.loss).backward()
    return [p.grad for p in parts.proj.parameters()]


def in_the_graph(parts: Parts) -> None:
    parts.encoder.requires_grad_(True)


def cloned(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x: torch.inference_mode()(forward)(x).clone()


@pytest.mark.parametrize(
    "change",
    [in_the_graph, wrapping("encoder", torch.no_grad()), wrapping("encoder", cloned)],
    ids=["in the graph", "no_grad", "inference_mode and clone"],
)
@pytest.mark.parametrize("build", [plain, memory_model])
def test_proj_gradients_do_not_depend_on_the_encoder_being_in_the_graph(build: Any, change: Any) -> None:
    expected = gradients(build())
    changed = build()
    change(changed)
    for mine, theirs in zip(gradients(changed), expected, strict=True):
        assert mine is not None
        assert theirs is not None
        # Bit for bit but where the encoder needs gradients itself: attention then takes another kernel.
        torch.testing.assert_close(
            mine,
            theirs,
            rtol=1e-3 if change is in_the_graph else 0,
            atol=1e-5 if change is in_the_graph else 0,
        )


def test_a_pad_without_grad_loses_nothing() -> None:
    value = torch.ones(2, requires_grad=True)
    assert torch.cat([value, torch.zeros(3)]).requires_grad


@pytest.mark.parametrize("build", [plain, memory_model])
def test_eval_cuts_nothing(build: Any) -> None:
    expected = gradients(build())
    parts = build()
    parts.model.eval()
    assert all(torch.equal(a, b) for a, b in zip(gradients(parts), expected, strict=True))  # type: ignore[arg-type]


def test_both_entries_of_the_encoder_package_are_decorated() -> None:
    from deepseek_ocr_encoder import DeepSeekOCREncoder

    for name in ("encode", "_forward_core"):
        method = inspect.getattr_static(DeepSeekOCREncoder, name)
        assert hasattr(method, "__wrapped__"), f"{name} is not decorated"
        closure = inspect.getclosurevars(method)
        contexts = [value for value in closure.nonlocals.values() if callable(value)]
        assert any("inference_mode" in repr(getattr(value, "__self__", value)) for value in contexts), name


def test_inference_mode_has_another_message() -> None:
    parts = plain()
    wrapping("encoder", torch.inference_mode())(parts)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        parts.model(**parts.batch)


@pytest.mark.parametrize("build", [plain, memory_model])
def test_the_rescue_trains_nothing(build: Any) -> None:
    parts = build()
    after("proj", lambda t: t.detach().requires_grad_(True))(parts)
    assert gradients(parts) == [None] * len(list(parts.proj.parameters()))


def test_the_ancestors_situation_is_named() -> None:
    parts = memory_model()
    parts.batch = parts.text_batch
    parts.model.config.context_threshold = parts.model.config.max_seq_length = 2048
    report = gradflow.check(parts.model, parts.batch)
    assert report.codes == ["GF007"]
    assert "no history exceeds context_threshold" in report.findings[0].evidence
    assert "grad_fn" not in report.findings[0].evidence

"""gradflow.check as a guest: it leaves the model as it was, keeps nothing, and costs one pass."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from support.faults import BUILDERS, FAULTS, memory_model, plain
from torch import nn

from ocrmem import gradflow

each_model = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@each_model
def test_gradients_buffers_random_state_and_hooks_are_as_before(build: Any) -> None:
    parts = build()
    parts.model.register_buffer("seen", torch.zeros(1))
    parts.model.register_forward_pre_hook(lambda module, args: module.seen.add_(1) is None or None)
    for parameter in parts.proj.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    parts.llm.eval()
    state, random_state = copy.deepcopy(parts.model.state_dict()), torch.get_rng_state()
    hooks = hooks_of(parts.model)
    gradflow.check(parts.model, parts.batch)
    assert all(torch.equal(value, state[name]) for name, value in parts.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(p.grad, torch.full_like(p, 3.0)) for p in parts.proj.parameters())
    assert all(p.grad is None for p in parts.llm.parameters())
    assert hooks_of(parts.model) == hooks
    assert not parts.llm.training


@each_model
def test_hooks_are_removed_when_forward_raises_an_error_of_its_own(build: Any) -> None:
    parts = build()

    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyError("not the doctor's business")

    parts.llm.forward = broken
    hooks = hooks_of(parts.model)
    with pytest.raises(KeyError, match="not the doctor's business"):
        gradflow.check(parts.model, parts.batch)
    assert hooks_of(parts.model) == hooks
    assert all(p.grad is None for p in parts.model.parameters())


@each_model
@pytest.mark.parametrize("case", [None, *FAULTS], ids=lambda case: case.name if case else "healthy")
def test_one_forward_and_at_most_one_backward_pass_of_the_batch(build: Any, case: Any) -> None:
    parts = build()
    if case:
        case.inject(parts)
    calls: list[str] = []
    parts.model.register_forward_pre_hook(lambda *_: calls.append("forward"))
    original = torch.Tensor.backward
    try:
        torch.Tensor.backward = lambda self, *a, **k: (calls.append("backward"), original(self, *a, **k))[1]  # type: ignore[method-assign,assignment]
        gradflow.check(parts.model, parts.batch)
    finally:
        torch.Tensor.backward = original  # type: ignore[method-assign]
    assert calls.count("forward") == 1
    assert calls.count("backward") <= 1


@each_model
def test_no_tensor_of_the_passes_stays_in_memory(build: Any) -> None:
    parts = build()
    kept: list[weakref.ref[torch.Tensor]] = []

    def remember(module: nn.Module, args: Any, output: Any) -> None:
        for value in output.values() if isinstance(output, dict) else [output]:
            if isinstance(value, torch.Tensor):
                kept.append(weakref.ref(value))

    handles = [m.register_forward_hook(remember) for m in parts.model.modules()]
    report = gradflow.check(parts.model, parts.batch)
    for handle in handles:
        handle.remove()
    gc.collect()
    assert report.ok
    assert len(kept) > 3
    assert [ref for ref in kept if ref() is not None] == []


def test_gradient_checkpointing_of_the_language_model_is_healthy() -> None:
    parts = memory_model()
    parts.model.train()
    parts.model.base_llm_model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator,union-attr]
    passes: list[int] = []
    layer = parts.model.base_llm_model.model.layers[0]  # type: ignore[union-attr,index]
    layer.mlp.register_forward_pre_hook(lambda *_: passes.append(1))  # type: ignore[union-attr]
    report = gradflow.check(parts.model, parts.batch)
    assert report.findings == []
    assert len(passes) == 2, "once forward, once more within backward"


def test_compiled_parts_run_eagerly_and_the_report_says_so() -> None:
    parts = plain()
    parts.model.llm = torch.compile(parts.llm)  # type: ignore[assignment]
    report = gradflow.check(parts.model, parts.batch)
    assert report.findings == []
    assert any("eagerly" in note and "llm" in note for note in report.recording.notes)


def test_a_compiled_model_is_looked_into() -> None:
    parts = plain()
    assert gradflow.check(torch.compile(parts.model), parts.batch).ok  # type: ignore[arg-type]


def test_a_custom_autograd_function_does_not_lose_the_trail() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return gradient * 2

    parts = plain()
    forward = parts.llm.forward
    parts.llm.forward = lambda x: forward(Double.apply(x))
    assert gradflow.check(parts.model, parts.batch).findings == []


def test_batch_norm_statistics_are_put_back() -> None:
    parts = plain()
    parts.model.encoder = nn.Sequential(parts.encoder, nn.BatchNorm1d(7)).requires_grad_(False)  # type: ignore[assignment]
    before = parts.model.encoder[1].running_mean.clone()  # type: ignore[index,union-attr,operator]
    gradflow.check(parts.model, parts.batch)
    assert torch.equal(parts.model.encoder[1].running_mean, before)  # type: ignore[index,union-attr,arg-type]


def test_several_faults_at_once_are_all_named() -> None:
    parts = plain()
    parts.proj.requires_grad_(False)
    parts.llm.requires_grad_(True)
    assert set(gradflow.check(parts.model, parts.batch).codes) == {"GF002", "GF015"}


def test_a_layer_of_proj_that_forward_skips_is_a_warning() -> None:
    parts = plain()
    parts.proj.append(nn.Linear(8, 8))  # type: ignore[operator]
    first = nn.Sequential(*list(parts.proj)[:3])  # type: ignore[arg-type]
    parts.proj.forward = first.forward
    report = gradflow.check(parts.model, parts.batch)
    assert report.codes == ["GF020"]
    assert report.ok
    assert "proj.3.weight" in report.findings[0].evidence


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("porj", "did you mean 'proj'"),
        ("proj.1", "holds parameters"),
        ("weight", r"5 modules or parameters have that name \(.* and 2 more\).*'\*.weight' for all of them"),
        ("*.nothing", "no module or parameter"),
    ],
)
def test_a_wrong_name_is_an_error_of_the_caller(trainable: str, message: str) -> None:
    parts = plain()
    with pytest.raises(ValueError, match=message):
        gradflow.check(parts.model, parts.batch, trainable)


def test_a_forward_without_a_loss_says_what_to_return() -> None:
    with pytest.raises(ValueError, match="loss"):
        gradflow.check(nn.Sequential(nn.Linear(2, 2)), {"input": torch.randn(1, 2)}, "0")


def test_a_tied_parameter_is_told_by_both_names() -> None:
    parts = plain()
    parts.model.add_module("twin", nn.Linear(8, 8, bias=False))
    parts.model.twin.weight = parts.proj[2].weight  # type: ignore[index,union-attr]
    report = gradflow.check(parts.model, parts.batch, ["proj", "twin.weight"])
    assert report.ok
    assert "twin.weight is proj.2.weight: one parameter with two names" in report.verdict()


def test_a_loss_of_several_elements_is_refused_with_its_shape() -> None:
    parts = plain()
    parts.model.register_forward_hook(lambda _m, _a, output: {"loss": output["loss"].expand(3)})
    with pytest.raises(ValueError, match=r"the loss has 3 elements \(shape \[3\]\): reduce it to one"):
        gradflow.check(parts.model, parts.batch)


def test_a_layer_that_starts_at_zero_costs_a_second_pass_and_leaves_no_trace() -> None:
    parts = plain()
    nn.init.zeros_(parts.proj[2].weight)  # type: ignore[index,arg-type]
    before, state = copy.deepcopy(parts.model.state_dict()), torch.get_rng_state()
    passes: list[int] = []
    parts.model.register_forward_pre_hook(lambda *_: passes.append(1))
    assert gradflow.check(parts.model, parts.batch).findings == []
    assert len(passes) == 2
    assert all(torch.equal(value, before[name]) for name, value in parts.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in parts.model.parameters())


def test_where_a_second_pass_fails_the_report_says_what_is_not_known() -> None:
    parts = plain()
    nn.init.zeros_(parts.proj[2].weight)  # type: ignore[index,arg-type]
    passes: list[int] = []

    def once(*_: Any) -> None:
        passes.append(1)
        if len(passes) > 1:
            raise RuntimeError("this model runs once")

    parts.model.register_forward_pre_hook(once)
    report = gradflow.check(parts.model, parts.batch)
    assert report.ok
    assert any("not known" in note and "this model runs once" in note for note in report.recording.notes)


def test_a_check_takes_its_hand_off_custom_functions() -> None:
    before = vars(torch.autograd.Function)["apply"]
    parts = plain()
    gradflow.check(parts.model, parts.batch)
    assert vars(torch.autograd.Function)["apply"] is before


def test_assert_flows_passes_on_a_healthy_model_and_names_the_fault_of_a_sick_one() -> None:
    parts = plain()
    gradflow.assert_flows(parts.model, parts.batch)
    parts.proj.requires_grad_(False)
    with pytest.raises(gradflow.GradientFlowError, match=r"GF002 .*requires_grad_\(True\)"):
        gradflow.assert_flows(parts.model, parts.batch)


@each_model
@pytest.mark.parametrize("case", [None, *FAULTS], ids=lambda case: case.name if case else "healthy")
def test_every_report_keeps_to_the_published_schema(build: Any, case: Any) -> None:
    schema = json.loads(resources.files("ocrmem.gradflow").joinpath("report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    parts = build()
    if case:
        case.inject(parts)
    values = json.loads(json.dumps(gradflow.check(parts.model, parts.batch).as_dict(), allow_nan=False))
    jsonschema.validate(values, schema)


def test_the_tree_marks_the_cut() -> None:
    parts = plain()
    FAULTS[4].inject(parts)
    lines = gradflow.check(parts.model, parts.batch).tree()
    marked = [line for line in lines if "GF005" in line]
    assert len(marked) == 1
    assert marked[0].lstrip().startswith("X")
    assert "0" in marked[0]


def test_the_page_escapes_what_comes_from_the_model(tmp_path: Path) -> None:
    parts = plain()
    parts.model.add_module("<script>alert(1)</script>", nn.Linear(1, 1))
    page = gradflow.check(parts.model, parts.batch).html("<b>title</b>")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_docs_list_every_code_with_its_title() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gradient-flow.md").read_text(encoding="utf-8")
    missing = [
        f.code
        for f in gradflow.CATALOGUE.values()
        if f"| {f.code} | {f.severity} | {f.title.format(module='proj')} |" not in page
    ]
    assert missing == []

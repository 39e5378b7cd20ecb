"""Layers that torch compiles: the same losses and gradients, one graph for all of them, whatever the lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import small_base, small_config
from transformers.modeling_layers import GradientCheckpointingLayer

from ocrmem.errors import ConfigError
from ocrmem.model import compiled_layers, packing
from ocrmem.model.compiled_layers import compile_layers
from ocrmem.model.modeling import MEMModel


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(compiled_layers, "missing_to_compile", lambda on_gpu: "")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/nothing is written: the compiler is a stand-in")
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_losses_and_gradients_stay_and_all_layers_share_their_graphs(
    packed: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(sum(node.op == "call_function" for node in graph.graph.nodes))
        return graph.forward

    model = MEMModel(small_config(), small_base()).train()
    packing.attend_within_samples(model.base_llm_model)
    if checkpointing:
        model.activation_checkpointing_enable()
    batches = [batch(lengths, packed) for lengths in ([5, 17, 11], [9, 30, 2, 6])]
    wanted = [step(model, one) for one in batches]
    compile_layers(model.base_llm_model, on_gpu=False, backend=compiler)
    layers = sum(isinstance(module, GradientCheckpointingLayer) for module in model.modules())
    found = [step(model, batches[0])]
    first = len(graphs)
    found.append(step(model, batches[1]))
    for (loss, gradient), (expected, expected_gradient) in zip(found, wanted, strict=True):
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-4)
    assert layers > 1
    assert sum(graphs) > 20  # the layer's arithmetic is in there
    assert len(graphs) == first  # other lengths, no other graph


def test_names_of_the_weights_stay() -> None:
    base = small_base()
    names = set(base.state_dict())
    compile_layers(base, on_gpu=False, backend="eager")
    assert set(base.state_dict()) == names


def test_without_a_compiler_the_setting_is_refused_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_layers, "missing_to_compile", lambda on_gpu: "Triton is not installed")
    with pytest.raises(ConfigError, match=r"train.compile_layers: is true, but Triton is not installed. Install"):
        compile_layers(small_base(), on_gpu=True)


def batch(lengths: list[int], packed: bool) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(len(lengths))
    ids = [torch.randint(6, 60, (length,), generator=source) for length in lengths]
    if packed:
        row = torch.cat(ids)[None]
        return {"input_ids": row, "labels": row, packing.SAMPLE_LENGTHS: torch.tensor(lengths)}
    rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = (rows > 0).long()
    return {"input_ids": rows, "labels": rows.masked_fill(mask == 0, -100), "attention_mask": mask}


def step(model: MEMModel, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    embedded = model.get_input_embeddings().weight
    embedded.requires_grad_(True)
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    gradient = embedded.grad
    embedded.requires_grad_(False)
    return loss.detach(), gradient

"""What the plan says autograd keeps, against what it keeps."""

from __future__ import annotations

import pytest
import torch
from support.live_bytes import LiveBytes, saved_bytes
from support.planned import described, made_batch, made_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from ocrmem.config import RunConfig
from ocrmem.families import Shape
from ocrmem.model.supervised_loss import loss_in_parts
from ocrmem.planning.activations import Lora, Projection, activations
from ocrmem.planning.shapes import base_config, shape_of
from ocrmem.planning.workload import BatchShape


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_what_forward_keeps_is_predicted_to_the_byte(dtype, padded, norm):
    model, batch = made_model(dtype=dtype, norm=norm), made_batch(padded=padded)
    shape, proj, size = described(model, padded=padded)
    planned = activations(shape, proj, size, dtype.itemsize, checkpointing=False)
    assert saved_bytes(lambda: model(**batch), model.parameters()) == planned.kept


@pytest.mark.parametrize("targets", [("q_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")])
@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_what_lora_keeps_is_predicted_to_the_byte(dtype, padded, targets):
    lora, batch = Lora(3, targets), made_batch(padded=padded)
    model = made_model(dtype=dtype, lora=lora)
    shape, proj, size = described(model, padded=padded)
    planned = activations(shape, proj, size, dtype.itemsize, checkpointing=False, lora=lora)
    assert saved_bytes(lambda: model(**batch), model.parameters()) == planned.kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_with_checkpointing_a_layer_keeps_its_input_alone(dtype):
    kept = []
    for layers in (2, 3):
        model = made_model(layers=layers, dtype=dtype)
        model.activation_checkpointing_enable()
        kept.append(saved_bytes(lambda model=model: model(**made_batch(padded=True)), model.parameters()))
    shape, proj, size = described(model, padded=True)
    planned = activations(shape, proj, size, dtype.itemsize, checkpointing=True)
    assert kept[1] - kept[0] == planned.layers / shape.layers


@pytest.fixture(scope="module")
def qwen3_8b():
    """Six layers of Qwen3-8B in bfloat16 as fake tensors, which have sizes and no memory."""
    base = base_config(RunConfig.load("configs/qwen3-8b-8gpu.yaml"))
    base.num_hidden_layers = 6
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        language = AutoModelForCausalLM.from_config(base, dtype=torch.bfloat16).requires_grad_(False).train()
    return shape_of(base), mode, language


@pytest.mark.parametrize("answer", [8, 1024], ids=["few answers", "many answers"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_the_peak_at_real_width_is_predicted_within_5_per_cent(qwen3_8b, checkpointing, answer):
    shape, mode, language = qwen3_8b
    rows, length = 2, 4096
    (language.activation_checkpointing_enable if checkpointing else language.activation_checkpointing_disable)()
    with mode, LiveBytes(language.parameters()) as bytes_:
        # The whole sequence needs a gradient, as behind the placeholders; where it comes from makes no difference.
        embeddings = torch.zeros(rows, length, shape.hidden, dtype=torch.bfloat16).requires_grad_()
        mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
        hidden = language.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state
        targets = torch.zeros(rows * answer, dtype=torch.long)
        hidden = hidden[:, :answer].reshape(-1, shape.hidden)
        loss = loss_in_parts(language.lm_head, hidden, targets, torch.tensor(1))
        del hidden
        loss.backward()
    batch = BatchShape(rows, length, length**2, 0, rows * answer, padded=True)
    planned = activations(shape, Projection(1024, 4096, False), batch, 2, checkpointing=checkpointing)
    assert planned.kept + planned.at_peak == pytest.approx(bytes_.peak, rel=0.05)


def test_qwen3_8b_keeps_what_was_reckoned_by_hand():
    shape = Shape(
        layers=36, hidden=4096, heads=32, kv_heads=8, head=128, inner=12288, vocabulary=151936, head_norms=True
    )
    even = BatchShape(1, 4096, 4096**2, 0, 0, padded=False)
    # 4 (2 * 4097 + 4096 + 32 + 1024 + 8) + 2 (2 * 4096 + 2 * 1024) + 4 * 32 + 3 * 12288 * 2 = 147,752 bytes
    planned = activations(shape, Projection(1024, 4096, False), even, 2, checkpointing=False)
    assert planned.layers == 36 * 4096 * 147_752
    padded = BatchShape(1, 4096, 4096**2, 0, 0, padded=True)
    # keys and values of all 32 heads: 2 * 2 * 3072 bytes more; a bias of 2 bytes for each of 4096 positions
    planned = activations(shape, Projection(1024, 4096, False), padded, 2, checkpointing=False)
    assert planned.layers == 36 * 4096 * (147_752 + 12_288 + 8_192)

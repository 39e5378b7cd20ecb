"""The forward pass: memory in the placeholders' place, the plain loss, gradients that reach proj."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from support.models import (
    HIDDEN,
    PLACEHOLDER,
    VISION,
    small_base,
    small_config,
    small_encoder,
    small_model,
    small_workspace,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

from ocrmem.config import RunConfig
from ocrmem.model import compatibility, modeling, projector
from ocrmem.model.compatibility import BatchError
from ocrmem.model.supervised_loss import loss_in_parts

PAGE_TOKENS = 64


def make_batch(memory: int = 7, *, rows: int = 2, length: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of random tokens, the first of which have placeholders; the last five tokens are supervised."""
    source = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, 64, (rows, length), generator=source)
    for number in range(memory):
        ids[number % rows, 2 + number // rows] = PLACEHOLDER
    labels = torch.full_like(ids, -100)
    labels[:, -5:] = ids[:, -5:]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if memory:
        batch["memory_features"] = torch.randn(memory, VISION, generator=source)
    return batch


def full_logits_loss(model, batch, divisor=None):
    """The loss as a plain causal language model has it: all logits, then a shift."""
    embeddings = model.base_llm_model.get_input_embeddings()(batch["input_ids"]).clone()
    if "memory_features" in batch:
        embeddings[batch["input_ids"] == PLACEHOLDER] = model.proj(batch["memory_features"])
    logits = model.base_llm_model(inputs_embeds=embeddings, attention_mask=batch["attention_mask"]).logits
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )
    return losses / (divisor or (batch["labels"][:, 1:] != -100).sum())


def proj_gradients(model) -> list[torch.Tensor]:
    gradients = [p.grad.clone() for p in model.proj.parameters()]
    model.zero_grad()
    return gradients


@pytest.mark.parametrize("memory", [7, 0])
@pytest.mark.parametrize("divisor", [None, 37])
@pytest.mark.parametrize("tied", [True, False])
def test_loss_equals_the_full_logits_loss(memory, divisor, tied):
    model = modeling.MEMModel(small_config(), small_base(tie_word_embeddings=tied))
    batch = make_batch(memory)
    ours = model(**batch, num_items_in_batch=None if divisor is None else torch.tensor(divisor)).loss
    torch.testing.assert_close(ours, full_logits_loss(model, batch, divisor), atol=1e-5, rtol=0)


def test_gradients_equal_those_of_the_full_logits_loss():
    model, batch = small_model(with_encoder=False), make_batch()
    model(**batch).loss.backward()
    ours = proj_gradients(model)
    full_logits_loss(model, batch).backward()
    for mine, plain in zip(ours, proj_gradients(model), strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-4)


def test_logits_are_made_for_supervised_positions_only(monkeypatch):
    model, batch = small_model(with_encoder=False), make_batch()
    seen = []

    def noting(head, hidden, targets, items):
        seen.append((head, hidden.shape))
        return loss_in_parts(head, hidden, targets, items)

    monkeypatch.setattr(modeling, "loss_in_parts", noting)
    model(**batch)
    assert seen == [(model.base_llm_model.lm_head, (10, HIDDEN))]


def test_a_label_on_the_first_token_is_left_out_as_nothing_precedes_it():
    model, batch = small_model(with_encoder=False), make_batch(0)
    with_first = {**batch, "labels": batch["labels"].clone()}
    with_first["labels"][:, 0] = batch["input_ids"][:, 0]
    assert torch.equal(model(**batch).loss, model(**with_first).loss)


def test_memory_stands_exactly_where_the_placeholders_are():
    model, batch = small_model(with_encoder=False), make_batch(5)
    seen = {}
    model.base_llm_model.model.register_forward_pre_hook(lambda _m, _a, kwargs: seen.update(kwargs), with_kwargs=True)
    output = model(**batch)
    assert output.memory_tokens == 5
    places = batch["input_ids"] == PLACEHOLDER
    torch.testing.assert_close(seen["inputs_embeds"][places], model.proj(batch["memory_features"]))
    plain = model.base_llm_model.model.embed_tokens(batch["input_ids"])
    assert torch.equal(seen["inputs_embeds"][~places], plain[~places])


@pytest.mark.parametrize("change", [1, -1])
def test_a_count_mismatch_names_both_numbers(change):
    model, batch = small_model(with_encoder=False), make_batch(7)
    batch["memory_features"] = torch.randn(7 + change, VISION)
    with pytest.raises(ValueError, match=rf"hold 7 placeholders, but the batch brings {7 + change} memory tokens"):
        model(**batch)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": torch.full((2, 24), -100)}, "no label is supervised"),
        ({"memory_features": torch.randn(7, VISION + 1)}, f"vision_embedding_size is {VISION}"),
        ({"memory_features": torch.randn(1, 7, VISION)}, f"vision_embedding_size is {VISION}"),
        ({"memory_embeddings": torch.randn(7, HIDDEN)}, "more than one source of memory"),
        ({"memory_features": None, "pixel_values": torch.randn(1, 3, 256, 256)}, "no encoder is attached"),
    ],
)
def test_a_batch_that_cannot_be_used_says_why(change, match):
    with pytest.raises(BatchError, match=match):
        small_model(with_encoder=False)(**make_batch() | change)


def test_a_batch_without_memory_still_has_proj_in_its_graph():
    model, batch = small_model(with_encoder=False), make_batch(0)
    output = model(**batch)
    assert output.memory_tokens == 0
    assert output.loss.requires_grad
    output.loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.proj.parameters())


def test_an_empty_tensor_of_features_is_no_memory():
    model, batch = small_model(with_encoder=False), make_batch(0)
    with_empty = {**batch, "memory_features": torch.empty(0, VISION)}
    assert torch.equal(model(**batch).loss, model(**with_empty).loss)


def test_ready_embeddings_take_the_place_of_projected_features():
    model, batch = small_model(with_encoder=False), make_batch()
    ready = model.proj(batch["memory_features"])
    with_ready = {**batch, "memory_features": None, "memory_embeddings": ready.clone()}
    assert torch.equal(model(**batch).loss, model(**with_ready).loss)


def pages_batch(model, *, kept: bool) -> tuple[dict, dict]:
    """The same two pages once as pixels, once as features."""
    pixels = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(3))
    mask = torch.rand(2, PAGE_TOKENS, generator=torch.Generator().manual_seed(4)) < 0.3
    features = model.ocr_embed(pixels)
    features = features[mask] if kept else features.flatten(0, 1)
    batch = make_batch(len(features), length=96)
    from_features = {**batch, "memory_features": features.clone()}
    from_pixels = {**batch, "memory_features": None, "pixel_values": pixels}
    return from_features, from_pixels | ({"page_kept": mask} if kept else {})


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("features", ["sum", "concat"])
def test_pages_through_the_encoder_give_the_same_as_their_features(kept, features):
    model = small_model(features=features, vision_embedding_size=VISION * (1 + (features == "concat")))
    from_features, from_pixels = pages_batch(model, kept=kept)
    model(**from_features).loss.backward()
    stored = proj_gradients(model)
    loss = model(**from_pixels).loss
    loss.backward()
    assert torch.equal(loss, model(**from_features).loss)
    assert all(torch.equal(a, b) for a, b in zip(stored, proj_gradients(model), strict=True))


def test_a_mask_of_other_pages_is_refused():
    model = small_model()
    _, batch = pages_batch(model, kept=True)
    batch["page_kept"] = batch["page_kept"][:, :10]
    with pytest.raises(BatchError, match="page_kept"):
        model(**batch)


def test_proj_s_gradients_do_not_depend_on_how_the_frozen_encoder_ran():
    model = small_model()
    batch, from_pixels = pages_batch(model, kept=False)
    pixels = from_pixels["pixel_values"]

    def plain():
        return model.ocr_embed(pixels)

    def in_graph():
        model.ocr_embed.requires_grad_(True)
        features = model.ocr_embed(pixels)
        assert features.requires_grad
        return features

    def under_no_grad():
        with torch.no_grad():
            return model.ocr_embed(pixels)

    def cloned_from_inference():
        with torch.inference_mode():
            features = model.ocr_embed(pixels)
        return features.clone()

    def in_eval():
        model.ocr_embed.eval()
        return model.ocr_embed(pixels)

    # The math kernel: the fused one rounds otherwise once gradients are recorded, in the encoder itself.
    results = []
    for run in (plain, in_graph, under_no_grad, cloned_from_inference, in_eval):
        with sdpa_kernel(SDPBackend.MATH):
            features = run().flatten(0, 1)
        model(**{**batch, "memory_features": features}).loss.backward()
        results.append(proj_gradients(model))
        model.ocr_embed.requires_grad_(False).train()
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert all(gradient.any() for gradient in results[0])


def test_features_from_inference_mode_are_refused_with_the_remedy():
    model, batch = small_model(with_encoder=False), make_batch()
    with torch.inference_mode():
        batch["memory_features"] = torch.randn(7, VISION)
    with pytest.raises(BatchError, match=r"clone\(\)"):
        model(**batch)
    with torch.no_grad():
        assert model(**batch).loss.isfinite()


def test_only_proj_is_trainable_and_only_proj_gets_gradients():
    model = small_model()
    _, batch = pages_batch(model, kept=True)
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith("proj.")
        assert (parameter.grad is not None) == name.startswith("proj."), name


def test_nothing_in_the_forward_path_cuts_the_graph():
    text = "".join(
        inspect.getsource(part)
        for part in (
            modeling.MEMModel.forward,
            modeling.MEMModel._embed,
            modeling.MEMModel._encode,
            projector.Projector.forward,
            type(small_encoder()).forward,
        )
    )
    for word in ("no_grad", "inference_mode", "detach", ".data", ".eval()"):
        assert f"{word}(" not in text.replace("()", "("), word


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_gradient_checkpointing_changes_no_gradient(reentrant):
    model, batch = small_model(with_encoder=False), make_batch()
    model.train()
    model(**batch).loss.backward()
    plain = proj_gradients(model)
    options = None if reentrant is None else {"use_reentrant": reentrant}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    layer = model.base_llm_model.model.layers[0]
    assert layer.gradient_checkpointing
    assert layer._gradient_checkpointing_func.keywords["use_reentrant"] is bool(reentrant)
    calls = []
    layer.input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    model(**batch).loss.backward()
    assert len(calls) == 2, "the layer was not computed again in backward"
    assert all(torch.equal(a, b) for a, b in zip(plain, proj_gradients(model), strict=True))


def test_gradient_checkpointing_does_not_hide_a_cut_chain():
    model, batch = small_model(with_encoder=False), make_batch()
    model.train()
    model.gradient_checkpointing_enable()
    model.proj.requires_grad_(False)
    assert not model(**batch).loss.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_language_model_trains_a_float32_proj(dtype):
    model = modeling.MEMModel(small_config(), small_base().to(dtype))
    batch = make_batch()
    batch["memory_features"] = batch["memory_features"].to(torch.bfloat16)
    loss = model(**batch).loss
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in model.proj.parameters())


def test_autocast_gives_nearly_the_same_loss():
    model, batch = small_model(with_encoder=False), make_batch()
    exact = model(**batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    torch.testing.assert_close(loss, exact, atol=0.1, rtol=0.05)
    assert all(p.grad.any() for p in model.proj.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_loss(side):
    model, batch = small_model(with_encoder=False), make_batch(4, rows=1)
    columns = (6, 0) if side == "left" else (0, 6)
    padded = {
        **batch,
        "input_ids": F.pad(batch["input_ids"], columns, value=0),
        "attention_mask": F.pad(batch["attention_mask"], columns, value=0),
        "labels": F.pad(batch["labels"], columns, value=-100),
    }
    torch.testing.assert_close(model(**padded).loss, model(**batch).loss, atol=1e-5, rtol=0)


def test_without_labels_there_are_logits():
    model, batch = small_model(with_encoder=False), make_batch()
    labels = batch.pop("labels")
    output = model(**batch)
    assert output.loss is None
    assert output.logits.shape == (*labels.shape, 64)
    torch.testing.assert_close(model(**batch, logits_to_keep=2).logits, output.logits[:, -2:])


def test_an_unknown_argument_is_not_swallowed():
    with pytest.raises(TypeError, match="memory_feature"):
        small_model(with_encoder=False)(**make_batch(0), memory_feature=torch.zeros(1))


def test_building_a_model_does_not_touch_the_parts_weights():
    base, encoder = small_base(seed=3), small_encoder(seed=3)
    before = {k: v.clone() for k, v in base.state_dict().items()}
    before_encoder = {k: v.clone() for k, v in encoder.state_dict().items()}
    model = modeling.MEMModel(small_config(), base, encoder)
    assert model.base_llm_model is base
    assert model.ocr_embed is encoder
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    assert all(torch.equal(v, before_encoder[k]) for k, v in encoder.state_dict().items())
    assert base.lm_head.weight is base.model.embed_tokens.weight


def test_projector_options():
    model = small_model(with_encoder=False, projector_norm=True, projector_hidden_size=12)
    assert model.proj.fc1.out_features == 12
    assert isinstance(model.proj.norm, torch.nn.LayerNorm)
    batch = make_batch()
    scaled = {**batch, "memory_features": batch["memory_features"] * 100}
    torch.testing.assert_close(model(**batch).loss, model(**scaled).loss, atol=1e-3, rtol=0)


def test_output_norm_begins_at_the_scale_of_the_base_models_embeddings_and_is_saved(tmp_path):
    run = small_workspace(tmp_path, features=False, model={"projector_output_norm": True})
    model = modeling.MEMModel.from_run_config(run, with_encoder=False)
    embeddings = model.get_input_embeddings().weight
    features = torch.randn(50, run.model.vision_embedding_size) * 30
    made = model.proj(features)
    torch.testing.assert_close(made.square().mean(-1).sqrt(), embeddings.square().mean().sqrt().expand(50))
    model.save_pretrained(tmp_path / "saved")
    loaded = modeling.MEMModel.from_pretrained(tmp_path / "saved", models=run.paths.models, run_config=run)
    assert torch.equal(loaded.proj(features), made)
    values = run.as_dict()
    values["model"]["projector_output_norm"] = False
    plain = RunConfig.from_dict(values)
    modeling.MEMModel.from_run_config(plain, with_encoder=False).save_pretrained(tmp_path / "plain")
    assert "projector_output_norm" not in (tmp_path / "plain" / "config.json").read_text(encoding="utf-8")
    with pytest.raises(compatibility.AdapterMismatch, match="projector_output_norm"):
        modeling.MEMModel.from_pretrained(tmp_path / "saved", run_config=plain)

"""Small LLaVA, BLIP-2 and PEFT models, healthy and sick, as `support.guests` has plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType, VeraConfig, get_peft_model
from support.faults import hide_in_a_dict
from support.guests import GuestCase, Made
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OPTConfig,
)

IMAGE = 39  # the placeholder's token
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PIXELS = {"image_size": 8, "patch_size": 4}
BLIP = ["query_tokens", "qformer", "language_projection"]
Change = Callable[[Any, dict[str, Any]], object]


def pictures() -> dict[str, Any]:
    ids = torch.tensor([[IMAGE] * 4 + [3, 4, 5], [IMAGE] * 4 + [6, 7, 8]])
    labels = ids.masked_fill(ids == IMAGE, -100)
    pixels = torch.randn(2, 3, 8, 8)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "pixel_values": pixels}


def texts() -> dict[str, Any]:
    ids = torch.tensor([[3, 4, 5, 9], [6, 7, 8, 9]])
    return {"input_ids": ids, "labels": ids}


def llava(change: Change = lambda model, batch: None) -> Callable[[], Made]:
    """A LLaVA whose projector alone is trained."""

    def make() -> Made:
        torch.manual_seed(0)
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(**SMALL, **PIXELS),
            text_config=LlamaConfig(vocab_size=40, num_key_value_heads=2, **SMALL),
            image_token_index=IMAGE,
            image_seq_length=4,
        )
        model, batch = LlavaForConditionalGeneration(config).train().requires_grad_(False), pictures()
        model.model.multi_modal_projector.requires_grad_(True)
        change(model, batch)
        return model, batch

    return make


def blip(change: Change = lambda model, batch: None) -> Callable[[], Made]:
    """A BLIP-2 between whose frozen parts everything is trained."""

    def make() -> Made:
        torch.manual_seed(0)
        config = Blip2Config(
            vision_config=Blip2VisionConfig(**SMALL, **PIXELS, initializer_range=0.3).to_dict(),
            qformer_config=Blip2QFormerConfig(vocab_size=40, encoder_hidden_size=16, **SMALL).to_dict(),
            text_config=OPTConfig(
                vocab_size=40, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2,
                word_embed_proj_dim=16, max_position_embeddings=64,
            ).to_dict(),
            num_query_tokens=4,
            image_token_index=IMAGE,
        )  # fmt: skip
        model, batch = Blip2ForConditionalGeneration(config).requires_grad_(False), pictures()
        nn.init.normal_(model.query_tokens)
        for part in (model.query_tokens, model.qformer, model.language_projection):
            part.requires_grad_(True)
        change(model, batch)
        return model, batch

    return make


def adapted(settings: Any = None, change: Change = lambda model, batch: None, **options: Any) -> Callable[[], Made]:
    """A Llama with PEFT's adapters: LoRA on queries and values, if nothing else is given."""

    def make() -> Made:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=40, num_key_value_heads=2, **SMALL)).train()
        lora = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": TaskType.CAUSAL_LM}
        chosen = settings or LoraConfig(**(lora | options))
        model, batch = get_peft_model(model, chosen), texts()
        change(model, batch)
        return model, batch

    return make


def only(*names: str) -> Change:
    """Train these parts of a BLIP-2 and no others."""

    def change(model: Any, batch: dict[str, Any]) -> None:
        model.requires_grad_(False)
        for name in names:
            getattr(model, name).requires_grad_(True)

    return change


def wrap(path: str, wrapper: Callable[[Any], Any]) -> Change:
    """Replace the forward of the module at ``path`` by ``wrapper(forward)``."""

    def change(model: nn.Module, batch: dict[str, Any]) -> None:
        module = model.get_submodule(path)
        module.forward = wrapper(module.forward)

    return change


def detached(forward: Any) -> Any:
    return lambda *a, **k: forward(*a, **k).detach()


def without_images(model: Any, batch: dict[str, Any]) -> None:
    del batch["pixel_values"]
    batch["input_ids"].clamp_(max=IMAGE - 1)


def with_lora(model: Any, batch: dict[str, Any]) -> None:
    model.model.language_model = get_peft_model(model.model.language_model, LoraConfig(r=2, target_modules=["q_proj"]))


def checkpointing(reentrant: bool, inputs: bool | None = None) -> Change:
    def change(model: Any, batch: dict[str, Any]) -> None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        if inputs is True:
            model.enable_input_require_grads()
        elif inputs is False:
            model.base_model.model.disable_input_require_grads()

    return change


def a_second_adapter(model: Any, batch: dict[str, Any]) -> None:
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"]))
    model.set_adapter("default")


def switched_off(forward: Any) -> Any:
    def off(*args: Any, **kwargs: Any) -> Any:
        with forward.__self__.disable_adapter():
            return forward(*args, **kwargs)

    return off


def zero(path: str) -> Change:
    return lambda model, batch: [
        nn.init.zeros_(p.requires_grad_(False)) for p in model.get_submodule(path).parameters()
    ]


LORA = "*.lora_*"
PROJECTOR = "model.multi_modal_projector"
HEALTHY = {
    "LLaVA's projector": GuestCase(llava(), trainable="multi_modal_projector"),
    "LLaVA's tower under no_grad": GuestCase(llava(wrap("model.vision_tower", torch.no_grad())), trainable=PROJECTOR),
    "LLaVA's tower under inference_mode, its hidden states copied": GuestCase(
        llava(wrap("model.vision_tower", torch.inference_mode())), trainable=PROJECTOR
    ),
    "LLaVA, checkpointed": GuestCase(llava(checkpointing(False)), trainable=PROJECTOR),
    "LLaVA, checkpointed re-entrantly": GuestCase(llava(checkpointing(True)), trainable=PROJECTOR),
    "LLaVA's projector and LoRA": GuestCase(llava(with_lora), trainable=["multi_modal_projector", LORA]),
    "all that is between BLIP-2's frozen parts": GuestCase(blip(), trainable=BLIP),
    "the same, with queries that start at zero": GuestCase(
        blip(lambda model, batch: nn.init.zeros_(model.query_tokens)), trainable=BLIP
    ),
    "BLIP-2's queries alone": GuestCase(blip(only("query_tokens")), trainable="query_tokens"),
    "BLIP-2's projection alone": GuestCase(blip(only("language_projection")), trainable="language_projection"),
    "BLIP-2's Q-Former alone": GuestCase(blip(only("qformer")), trainable="qformer"),
    "LoRA by a pattern": GuestCase(adapted(), trainable=LORA),
    "LoRA by the layer that it adapts": GuestCase(
        adapted(layers_to_transform=[1]), trainable=["layers.1.self_attn.q_proj", "layers.1.self_attn.v_proj"]
    ),
    "LoRA by the whole model": GuestCase(adapted(), trainable="base_model"),
    "LoRA with a dropout": GuestCase(adapted(lora_dropout=0.5), trainable=LORA),
    "DoRA": GuestCase(adapted(use_dora=True), trainable=LORA),
    "LoRA and a head that is saved": GuestCase(adapted(modules_to_save=["lm_head"]), trainable="base_model"),
    "LoRA, checkpointed": GuestCase(adapted(change=checkpointing(False)), trainable=LORA),
    "LoRA, checkpointed re-entrantly": GuestCase(adapted(change=checkpointing(True, inputs=True)), trainable=LORA),
    "LoRA beside an adapter that is not active": GuestCase(adapted(change=a_second_adapter), trainable="base_model"),
    "VeRA": GuestCase(adapted(VeraConfig(r=2, target_modules=["q_proj"])), trainable="base_model"),
    "IA3": GuestCase(
        adapted(IA3Config(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"])),
        trainable="*.ia3_l",
    ),
    "prompt tuning": GuestCase(
        adapted(PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)), trainable="prompt_encoder"
    ),
}

SICK = {
    "LLaVA on text alone": GuestCase(
        llava(without_images), ("GF007",), PROJECTOR, module=PROJECTOR, says="never called", never="memory"
    ),
    "LLaVA's projector under no_grad": GuestCase(
        llava(wrap(PROJECTOR, torch.no_grad())), ("GF003",), PROJECTOR, module=f"{PROJECTOR}.linear_1"
    ),
    "LLaVA's features detached": GuestCase(llava(wrap(PROJECTOR, detached)), ("GF006",), PROJECTOR, within=detached),
    "LLaVA's language model under no_grad": GuestCase(
        llava(wrap("model.language_model", torch.no_grad())), ("GF005",), PROJECTOR
    ),
    "LLaVA's features hidden from a re-entrant checkpoint": GuestCase(
        llava(wrap("model.language_model", hide_in_a_dict)), ("GF009",), PROJECTOR
    ),
    "LLaVA with a picture of NaN": GuestCase(
        llava(lambda model, batch: batch["pixel_values"].fill_(torch.nan)), ("GF018",), PROJECTOR, module="pixel_values"
    ),
    "LLaVA of two precisions": GuestCase(llava(lambda model, batch: model.lm_head.bfloat16()), ("GF014",), PROJECTOR),
    "LLaVA's language model trained too": GuestCase(
        llava(lambda model, batch: model.lm_head.requires_grad_(True)), ("GF015",), PROJECTOR, module="lm_head"
    ),
    "BLIP-2's Q-Former forgotten": GuestCase(
        blip(only("query_tokens", "language_projection")), ("GF002",), BLIP, module="qformer", says="qformer."
    ),
    "BLIP-2's Q-Former behind a projection of zeros": GuestCase(
        blip(zero("language_projection")), ("GF017", "GF017"), ["query_tokens", "qformer"], module="language_projection"
    ),
    "LLaVA's tower blind to its pixels": GuestCase(
        llava(zero("model.vision_tower.embeddings.patch_embedding")), ("GF013",), PROJECTOR, says="page to page"
    ),
    "BLIP-2's Q-Former under no_grad": GuestCase(
        blip(wrap("qformer", torch.no_grad())), ("GF005", "GF003"), BLIP, module="qformer.layernorm"
    ),
    "LoRA loaded for inference": GuestCase(
        adapted(inference_mode=True), ("GF002",), "base_model",
        says="lora_A", remedy="is_trainable=True", never="base_layer",
    ),
    "LoRA loaded for inference, by its layer": GuestCase(
        adapted(inference_mode=True, layers_to_transform=[1]), ("GF002",), "1.self_attn.q_proj",
        says="lora_A", remedy="base stays frozen", never="base_layer",
    ),
    "LoRA switched off": GuestCase(
        adapted(change=lambda model, batch: setattr(model, "forward", switched_off(model.forward))), ("GF007",), LORA,
        says="never called", remedy="disable_adapter", never="memory",
    ),
    "LoRA merged into its layers": GuestCase(
        adapted(change=lambda model, batch: model.merge_adapter()), ("GF007",), LORA, says="never called"
    ),
    "LoRA with an alpha of 0": GuestCase(adapted(lora_alpha=0), ("GF017",), LORA, says="lora_A", remedy="zero"),
    "LoRA over a base that is not frozen": GuestCase(
        adapted(change=lambda model, batch: model.base_model.model.lm_head.requires_grad_(True)), ("GF015",), LORA
    ),
    "LoRA, checkpointed re-entrantly without inputs": GuestCase(
        adapted(change=checkpointing(True, inputs=False)), ("GF008",), LORA, remedy="use_reentrant=False"
    ),
}  # fmt: skip

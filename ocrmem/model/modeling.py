"""MEMModel: frozen encoder -> proj -> frozen language model, as one Hugging Face model.

Memory enters the sequence where placeholder tokens stand: proj maps vision tokens to embeddings, and
masked_scatter writes them over the placeholders' own. Only proj is trained, and LoRA where the configuration asks for
it. The rest is frozen by ``requires_grad`` alone; the forward path holds no no_grad, inference_mode, detach or eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import ModelOutput

from ocrmem.arguments import as_path
from ocrmem.config import RunConfig
from ocrmem.encoder.device import DTYPES, pick_device
from ocrmem.facts import IGNORED, LORA, PROJ
from ocrmem.gradflow.batch_facts import BatchFacts, rows_differ
from ocrmem.model import compatibility, lora, packing, trainable
from ocrmem.model.adapter_files import WEIGHTS, read_config, read_weights, write_adapter
from ocrmem.model.compatibility import BatchError
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.embedding_scale import begin_output_norm
from ocrmem.model.frozen_parts import load_base, parts_of_adapter, parts_of_run
from ocrmem.model.prefix_cache import PrefixCache
from ocrmem.model.projector import Projector
from ocrmem.model.supervised_loss import is_plain, loss_in_parts
from ocrmem.model_places import locate

_ENOUGH_TOKENS = 8  # fewer say nothing about a standard deviation


@dataclass
class MEMOutput(ModelOutput):
    """The result of forward.

    Attributes:
        loss: scalar float32; only with labels.
        logits: [B, kept positions, vocabulary] without labels; [supervised positions, vocabulary] with ``keep_logits``.
        memory_tokens: vision tokens that stand in this batch.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    memory_tokens: int | None = None


class MEMModel(PreTrainedModel):
    """A language model with an optical memory.

    Args:
        config: what to build; ``hidden_size`` is filled in from the language model.
        base_llm_model: the causal language model; loaded by ``config.base_model_name`` when left out.
        ocr_embed: the encoder ([P, 3, S, S] -> [P, n, d]); without one, batches bring features.

    Raises:
        InvalidModelConfig: (a ValueError) the configuration contradicts itself or the parts given.
        ConfigError, ModelError: LoRA cannot be put on the language model, see `ocrmem.model.lora.add_lora`.
    """

    config: MEMConfig
    config_class = MEMConfig
    feature_mean: torch.Tensor | None
    feature_std: torch.Tensor | None
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True  # Trainer passes num_items_in_batch

    def __init__(
        self, config: MEMConfig, base_llm_model: PreTrainedModel | None = None, ocr_embed: nn.Module | None = None
    ) -> None:
        compatibility.require_parts(config, base_llm_model, ocr_embed)
        config.check()
        super().__init__(config)
        if base_llm_model is None:
            location = locate(config.base_model_name, "models", "base", config.base_revision)
            base_llm_model = load_base(location, revision=config.base_revision)
        hidden_size = cast(nn.Embedding, base_llm_model.get_input_embeddings()).embedding_dim
        if config.hidden_size is None:
            config.hidden_size = hidden_size
        compatibility.check_parts(config, base_llm_model, ocr_embed, hidden_size)
        self.base_llm_model = base_llm_model.requires_grad_(False)
        self.ocr_embed = ocr_embed.requires_grad_(False) if ocr_embed is not None else None
        self.proj = Projector(
            config.vision_embedding_size,
            hidden_size,
            inner_size=config.projector_hidden_size,
            norm=config.projector_norm,
            output_norm=config.projector_output_norm,
        )
        if config.lora is not None:  # after proj, which is the same without it
            lora.add_lora(base_llm_model, **config.lora)
        self.register_buffer("feature_mean", None)
        self.register_buffer("feature_std", None)
        self.post_init()

    @classmethod
    def from_run_config(
        cls, config: RunConfig, *, with_encoder: bool, whole: Callable[[Iterable[nn.Parameter]], Any] = nullcontext
    ) -> Self:
        """Build the model of a run, with a new proj, and LoRA, that are the same for the same ``train.seed``.

        Args:
            config: names, precision, device and LoRA; proj itself is always float32.
            with_encoder: also load the encoder; not needed where features are stored.
            whole: context in which parameters are not partitioned (ZeRO-3).

        Raises:
            MissingInputError: the tiny preset has not been built.
            ModelError: a part does not load.
            InvalidModelConfig: the settings do not fit the parts.
        """
        parts = parts_of_run(config, with_encoder=with_encoder)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(config.train.seed)
            model = cls(*parts)
        embedding = cast(nn.Embedding, model.get_input_embeddings())
        with whole(embedding.parameters()):
            begin_output_norm(model.proj, embedding)
        cast(nn.Module, model).to(pick_device(config.model.device))
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        adapter_dir: str | Path,
        *,
        base_llm_model: PreTrainedModel | None = None,
        ocr_embed: nn.Module | None = None,
        with_encoder: bool = False,
        models: str | Path = "models",
        run_config: RunConfig | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load an adapter, and around it the frozen parts it was trained with.

        Args:
            adapter_dir: folder with adapter.safetensors and config.json.
            base_llm_model, ocr_embed: the language model and the encoder, if they are loaded already.
            with_encoder: load the encoder too.
            models: where the tiny preset was built (``paths.models``).
            run_config: settings the adapter must fit; its ``paths.models``, encoder, precision and device are used.
            dtype: precision of the frozen parts.
            device: "auto", "cpu", "cuda" ...

        Raises:
            ConfigError: an argument is something else.
            MissingInputError, ModelError: a file is not there, or broken; or, as AdapterMismatch, the adapter does
                not fit the language model, the encoder or the run, naming the field and both values.
            InvalidModelConfig: the adapter's configuration cannot be built.
        """
        directory = as_path("MEMModel.from_pretrained", adapter_dir)
        config, implementation = read_config(directory), "native"
        if run_config is not None:
            compatibility.check_run(config, run_config)
            models, device, implementation = run_config.paths.models, run_config.model.device, run_config.model.encoder
            dtype = DTYPES[run_config.model.precision]
        config.check()
        tensors = read_weights(directory)
        target = pick_device(device)
        parts = parts_of_adapter(
            config,
            base_llm_model,
            ocr_embed,
            with_encoder=with_encoder,
            implementation=implementation,
            models=models,
            dtype=dtype,
            device=target,
        )
        model = cls(config, *parts)
        own = model.adapter_tensors()
        compatibility.check_weights(str(directory / WEIGHTS), tensors, own, config.vision_embedding_size)
        for name, tensor in own.items():
            tensor.detach().copy_(tensors[name])
        if "feature_mean" in tensors and "feature_std" in tensors:
            model.set_feature_statistics(tensors["feature_mean"], tensors["feature_std"])
        cast(nn.Module, model).to(target)
        return model

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, state_dict: dict[str, torch.Tensor] | None = None, **_: Any
    ) -> None:
        """Save the adapter alone: proj, LoRA if there is any, feature statistics and config.json.

        Args:
            save_directory: made if it is not there; other files in it stay.
            state_dict: tensors to save instead of the model's own (gathered ones under ZeRO-3); the frozen
                parts among them are left out.
        """
        write_adapter(Path(save_directory), self.config, self.adapter_tensors(state_dict))

    def adapter_tensors(self, state_dict: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """Return what an adapter file holds: ``proj.*``; where set, ``lora.*``, ``feature_mean``, ``feature_std``."""
        if state_dict is None:
            state_dict = {f"{PROJ}.{n}": t for n, t in self.proj.state_dict().items()} | self.lora_weights()
            statistics = {"feature_mean": self.feature_mean, "feature_std": self.feature_std}
            state_dict |= {name: tensor for name, tensor in statistics.items() if tensor is not None}
        return {name: t for name, t in state_dict.items() if name.startswith((f"{PROJ}.", f"{LORA}.", "feature_"))}

    def lora_weights(self) -> dict[str, nn.Parameter]:
        """Return LoRA's weights by their names in an adapter's file; none without ``config.lora``."""
        return lora.lora_weights(self.base_llm_model)

    def set_feature_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Remember mean and standard deviation [d] of the training features; the adapter carries them."""
        device = self.proj.fc1.weight.device
        self.feature_mean = mean.to(device, torch.float32)
        self.feature_std = std.to(device, torch.float32)

    def feature_drift(self, features: torch.Tensor) -> dict[str, float] | None:
        """Measure how far features [M, d] are from those the adapter was trained on.

        Returns:
            ``shift``: mean over channels of |mean - trained mean| in trained standard deviations. ``spread``: mean over
            channels of |ln(standard deviation / trained one)|; left out for a handful of tokens. Far above 1 points to
            another encoder, precision or page geometry. None without stored statistics (an imported adapter).
        """
        if self.feature_mean is None or self.feature_std is None:
            return None
        distance = (features.to(self.feature_mean).mean(0) - self.feature_mean).abs()
        drift = {"shift": round(float((distance / self.feature_std.clamp(min=1e-6)).mean()), 4)}
        trained = self.feature_std.float().cpu()
        alive = trained > 0
        if len(features) >= _ENOUGH_TOKENS and alive.any():
            now = features.std(0, unbiased=False)[alive].clamp(min=1e-6)
            drift["spread"] = round(float((now / trained[alive]).log().abs().mean()), 4)
        return drift

    def init_weights(self) -> None:
        """Do nothing: the frozen parts come with their weights, and proj's layers initialise themselves."""

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's."""
        return self.base_llm_model.get_input_embeddings()

    def enable_input_require_grads(self) -> None:
        """Do nothing: every batch carries proj's gradient, so checkpointing finds inputs that need one.

        transformers would make the frozen embeddings' output require a gradient here. A graph that is cut behind proj
        would then still give a loss with a gradient, and training would change nothing.
        """

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        memory_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        page_kept: torch.Tensor | None = None,
        memory_embeddings: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int = 0,
        keep_logits: bool = False,
        text_ids: torch.Tensor | None = None,
        text_lengths: torch.Tensor | None = None,
        sample_lengths: torch.Tensor | None = None,
    ) -> MEMOutput:
        """Compute the next-token loss over the supervised positions, or logits; with ``text_ids``, proj's error.

        At most one of the three sources of memory is given; their rows fill the placeholders in batch order.

        Args:
            input_ids: long [B, L]; None with ``text_ids``.
            attention_mask: 1 for tokens, 0 for padding [B, L], on either side; None: no padding.
            labels: long [B, L], -100 where nothing is to be predicted; not shifted.
            memory_features: the encoder's features of all kept vision tokens [M, d].
            pixel_values: pages [P, 3, S, S] for the attached encoder, paper +1, ink -1.
            page_kept: bool [P, n], which of each page's vision tokens stand in the sequence; None: all.
            memory_embeddings: [M, H], used as they are (text baselines).
            num_items_in_batch: divide the summed loss by this instead of by the batch's own count.
            logits_to_keep: without labels, only this many last positions get logits; 0: all.
            keep_logits: return the logits of the supervised positions besides the loss.
            text_ids: long [T], the text under the vision tokens, of one after the other. The loss is then the mean
                squared difference between each token's memory and the mean of its text's input embeddings, and the
                language model does not run.
            text_lengths: long [M], how many of ``text_ids`` each vision token has, at least 1.
            sample_lengths: long [S], the lengths of samples that lie one behind the other in the only row; each is
                computed as if it had a row to itself. None: every row is a sample.

        Raises:
            BatchError: (a ValueError) the placeholders are not as many as the memory tokens, no label is
                supervised, ``sample_lengths`` do not make up one row, or a source of memory cannot be used.
        """
        if text_ids is not None and text_lengths is not None:
            features = self._encode(pixel_values, page_kept) if pixel_values is not None else memory_features
            return self._compare_with_text(features, text_ids, text_lengths, num_items_in_batch)
        if input_ids is None:
            raise BatchError.of("input_ids", "is missing", "Give it, or text_ids and text_lengths")
        embeddings, memory_tokens = self._embed(input_ids, memory_features, pixel_values, page_kept, memory_embeddings)
        mask, positions = packing.mask_and_positions(self.base_llm_model, input_ids, attention_mask, sample_lengths)
        hidden = self.base_llm_model.base_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        head = cast(nn.Module, self.base_llm_model.get_output_embeddings())
        if labels is None:
            return MEMOutput(logits=head(hidden[:, -logits_to_keep:]), memory_tokens=memory_tokens)
        targets = labels[:, 1:]
        supervised = targets != IGNORED
        hidden_ND = hidden[:, :-1][supervised]
        if not len(hidden_ND):
            raise BatchError.of(
                "labels",
                "no label is supervised: every one is -100, and the mean over none of them is NaN",
                "Label the answer's tokens; check that truncation does not cut the answer off",
            )
        items = _items(num_items_in_batch, hidden_ND)
        if not keep_logits and is_plain(head):
            return MEMOutput(loss_in_parts(head, hidden_ND, targets[supervised], items), memory_tokens=memory_tokens)
        logits = head(hidden_ND)
        loss = F.cross_entropy(logits.float(), targets[supervised], reduction="sum") / items
        return MEMOutput(loss, logits if keep_logits else None, memory_tokens)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        memory_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        page_kept: torch.Tensor | None = None,
        memory_embeddings: torch.Tensor | None = None,
        *,
        max_new_tokens: int,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        prefix: PrefixCache | None = None,
    ) -> torch.Tensor:
        """Answer greedily.

        Args:
            input_ids: long [B, L], padded on the left; the rest as in `forward`.
            max_new_tokens: at most this many a row.
            eos_token_id: ends a row; None: what the language model's generation config says.
            pad_token_id: fills a row after its end; None: the generation config's, or the end token.
            prefix: what was read before, of which nothing is read again; for one row whose memory, if it has any,
                comes as ``memory_features``. Afterwards it holds this row and its answer.

        Returns:
            The new tokens alone, long [B, new], on the device of the input.

        Raises:
            BatchError: as in `forward`, a row is padded on the right, or there is no such prefix.
        """
        if prefix is not None and (len(input_ids) != 1 or pixel_values is not None or memory_embeddings is not None):
            raise BatchError.of("prefix", "is for one row with memory_features", "Leave it out for other batches")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if not attention_mask[:, -1].all():
            raise BatchError.of("attention_mask", "a row ends in padding", "Pad on the left to generate")
        settings = self.base_llm_model.generation_config
        if eos_token_id is None:
            eos_token_id = settings.eos_token_id
        if pad_token_id is None:
            pad_token_id = settings.pad_token_id
        if pad_token_id is None and eos_token_id is not None:
            pad_token_id = eos_token_id if isinstance(eos_token_id, int) else eos_token_id[0]
        embeddings, _ = self._embed(input_ids, memory_features, pixel_values, page_kept, memory_embeddings)
        past = None if prefix is None else prefix.take(input_ids[0], memory_features)
        training = self.base_llm_model.training
        # In train mode, gradient checkpointing would switch the cache off.
        self.base_llm_model.eval()
        try:
            answers = cast(Any, self.base_llm_model).generate(
                inputs_embeds=embeddings,
                attention_mask=attention_mask,
                past_key_values=past,
                generation_config=GenerationConfig(
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    eos_token_id=eos_token_id,
                    pad_token_id=pad_token_id,
                ),
            )
        finally:
            self.base_llm_model.train(training)
        if prefix is not None and past is not None:
            prefix.keep(torch.cat([input_ids[0], answers[0]]), memory_features, past)
        return cast(torch.Tensor, answers)

    def trainable_parameters(self) -> list[trainable.PartCount]:
        """Count the parameters by part: base, encoder, proj and LoRA."""
        return trainable.count_parameters(self)

    def describe_batch(self, batch: Mapping[str, torch.Tensor]) -> BatchFacts:
        """Count a batch's memory for `gradflow.check`."""
        facts = BatchFacts()
        if "input_ids" in batch:
            is_memory = batch["input_ids"] == self.config.placeholder_token_id
            per_sample = [int(part.sum()) for part in packing.by_sample(is_memory, batch.get(packing.SAMPLE_LENGTHS))]
            facts.memory_tokens = sum(per_sample)
            facts.groups = [count for count in per_sample if count]
            facts.samples_with_memory = len(facts.groups)
        if batch.get("page_kept") is not None:
            facts.groups = batch["page_kept"].sum(dim=1).tolist()
        if batch.get("pixel_values") is not None:
            facts.distinct = rows_differ(batch["pixel_values"])
        return facts

    def print_trainable_parameters(self) -> None:
        """Print the ancestor's line and a table by part.

        Raises:
            ModelError: anything but proj (and LoRA, with ``config.lora``) is trainable, or a part of it is not.
        """
        trainable.check_trainable(self)
        print(trainable.parameter_report(self.trainable_parameters()))

    def _compare_with_text(
        self,
        features: torch.Tensor | None,
        text_ids: torch.Tensor,
        text_lengths: torch.Tensor,
        items: torch.Tensor | int | None,
    ) -> MEMOutput:
        """Return proj's mean squared error against the mean embedding of each vision token's text."""
        features = compatibility.features_with_text(features, text_ids, text_lengths)
        compatibility.check_features(features, self.config.vision_embedding_size)
        idle = 0.0 if self.config.lora is None else lora.idle(self.base_llm_model)
        if not len(features):
            return MEMOutput(loss=self._idle() + idle, memory_tokens=0)
        text = self.get_input_embeddings()(text_ids).float()
        wanted = torch.segment_reduce(text, "mean", lengths=text_lengths)
        total = (self.proj(features).float() - wanted).square().mean(dim=-1).sum()
        return MEMOutput(loss=total / _items(items, features) + idle, memory_tokens=len(features))

    def _idle(self) -> torch.Tensor:
        """Return 0, with proj in its graph: every rank has the same parameters in its own."""
        return self.proj(self.proj.fc1.weight.new_zeros(1, self.config.vision_embedding_size)).sum() * 0.0

    def _embed(
        self,
        input_ids: torch.Tensor,
        features: torch.Tensor | None,
        pixels: torch.Tensor | None,
        kept: torch.Tensor | None,
        ready: torch.Tensor | None,
    ) -> tuple[torch.Tensor, int]:
        """Return embeddings [B, L, H] with memory in the placeholders, and the number of memory tokens."""
        sources = {"memory_features": features, "pixel_values": pixels, "memory_embeddings": ready}
        given = [name for name, value in sources.items() if value is not None]
        if len(given) > 1:
            raise BatchError.of(", ".join(given), "more than one source of memory is given", "Give one of them")
        embeddings = self.base_llm_model.get_input_embeddings()(input_ids)
        if pixels is not None:
            features = self._encode(pixels, kept)
        if features is not None:
            compatibility.check_features(features, self.config.vision_embedding_size)
        if features is not None and len(features):
            memory = self.proj(features)
        else:
            embeddings = embeddings + self._idle().to(embeddings.dtype)
            memory = embeddings.new_zeros(0, embeddings.shape[-1]) if ready is None else ready
        placeholders = input_ids == self.config.placeholder_token_id
        count = int(placeholders.sum())
        if count != len(memory):
            raise BatchError.of(
                "input_ids",
                f"hold {count} placeholders, but the batch brings {len(memory)} memory tokens",
                "Collate features and sequences of the same samples in the same order",
            )
        if count:
            embeddings = embeddings.masked_scatter(placeholders.unsqueeze(-1), memory.to(embeddings.dtype))
        return embeddings, count

    def _encode(self, pixels: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        if self.ocr_embed is None:
            raise BatchError.of(
                "pixel_values", "no encoder is attached to turn them into features", "Load with with_encoder=True"
            )
        dtype = next(self.ocr_embed.parameters()).dtype
        features_PND = self.ocr_embed(pixels.to(dtype))
        if kept is None:
            return features_PND.flatten(0, 1)
        if kept.shape != features_PND.shape[:2]:
            raise BatchError.of(
                "page_kept",
                f"has shape {tuple(kept.shape)}, but the encoder gives {tuple(features_PND.shape[:2])}",
                "Use the mask of pages of this size",
            )
        return features_PND[kept]


def _items(items: torch.Tensor | int | None, rows: torch.Tensor) -> torch.Tensor:
    """Return what a batch's sum is divided by: the items of the optimizer step, or the batch's own rows; a scalar."""
    return torch.as_tensor(len(rows) if items is None else items, device=rows.device)

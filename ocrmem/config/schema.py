"""The settings of a run: one class a section of params.yaml, one field a setting, its meaning below it.

`ocrmem.config.rules` joins fields, `ocrmem.config.run_config` reads and checks them; what needs data, a tokenizer
or a device is in `ocrmem.validation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ocrmem.config.kubernetes_section import KubernetesSection
from ocrmem.config.section import Section, Share, Text, form
from ocrmem.families import EXAMPLE, TINY, Family, family_of

FieldPath = tuple[str, ...]
ITEM = "*"  # stands for the number of an item of a list in a field's path


class ModelSection(Section):
    """The frozen models, the projector between them, and when text becomes memory."""

    base_model_name: Annotated[
        str, form(str.strip, f"Name the base model: tiny, a hub name such as {EXAMPLE}, or a directory")
    ] = TINY
    """The frozen language model: `tiny`, a hub name such as Qwen/Qwen3-8B, or a directory."""
    base_revision: str | None = None
    """Commit of the language model on the hub; null: its main branch. Pin it for hub names."""
    ocr_model_name: Annotated[
        str,
        form(str.strip, "Name the encoder: tiny, english, a hub name such as deepseek-ai/DeepSeek-OCR, or a directory"),
    ] = TINY
    """The frozen encoder: `tiny`, `english` (in the box), a hub name or a directory."""
    ocr_revision: str | None = None
    """Commit of the encoder on the hub; null: its main branch. Pin it for hub names."""
    encoder: Literal["native", "deepseek-ocr-encoder"] = "native"
    """What runs the encoder's weights: transformers' own modules, or the package deepseek-ocr-encoder around them."""
    features: Literal["sum", "concat"] = "sum"
    """Content of a vision token: `sum` is SAM's tokens + CLIP's, `concat` both side by side."""
    vision_embedding_size: PositiveInt = 1024
    """Width of one vision token as the encoder gives it."""
    context_threshold: NonNegativeInt = 1024
    """Histories of more tokens than this become pages."""
    max_seq_length: PositiveInt = 2048
    """Tokens in the language model's sequence, memory included."""
    drop_blank_tokens: bool = True
    """Leave out the vision tokens of patches without ink."""
    projector_hidden_size: PositiveInt | None = None
    """Width between the projector's two layers; null: the language model's hidden size."""
    projector_norm: bool = False
    """LayerNorm in front of the projector."""
    projector_output_norm: bool = False
    """RMSNorm behind the projector, whose weight begins at the RMS of the language model's own embeddings."""
    encoder_kernels: Literal["plain", "compiled", "fused"] = "plain"
    """How a GPU runs the encoder in `encode`: `plain`; `compiled` by torch, which takes a minute first; or `fused`:
    compiled, with the distances of patches added inside the attention kernel."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the frozen models; the projector is always trained in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; `auto`: on a GPU if there is one."""

    @property
    def family(self) -> Family:
        """Family of the base model (see `ocrmem.families`)."""
        return family_of(self.base_model_name, self.base_revision)


class BaseSection(Section):
    """Training of the embedded tiny language model and encoder, and of the encoder `english` with `base --teach`."""

    seed: int = 0
    """First seed that is tried."""
    encoder_steps: PositiveInt = 250
    """Training steps of the encoder: 250 are enough for tiny, 3600 for english."""
    lm_steps: PositiveInt = 1300
    """Training steps of the tiny language model."""
    text_recall: Share = 0.98
    """Share of questions that the language model must answer from text; it is trained on, then reseeded, until it
    does."""
    max_attempts: PositiveInt = 3
    """Seeds tried before giving up."""


class LabelSection(Section):
    """Labels in front of the messages on a page."""

    system: str = "system: "
    """In front of a system message."""
    user: str = "user: "
    """In front of a user message."""
    assistant: str = "assistant: "
    """In front of an assistant message."""
    tool: str = "tool: "
    """In front of a tool's answer."""


class RenderSection(Section):
    """Drawing of history text on pages."""

    page_size: PositiveInt = 1024
    """Side of a page in px: 512, 640, 1024 or 1280 for DeepSeek-OCR, 256 for tiny."""
    token_size: PositiveInt = 64
    """Side in px of the square of page that one vision token sees: 64 for DeepSeek-OCR, 32 for tiny."""
    line_height: PositiveInt = 16
    """Px from one line to the next; a glyph is 16 px high."""
    max_pages: PositiveInt = 8
    """Pages of one history; the oldest are dropped."""
    newlines: Literal["break", "flow"] = "break"
    """`break` starts a line at a newline, `flow` draws a visible mark instead."""
    align: Literal["none", "token"] = "none"
    """`none` fills rows as wide as the page; `token` fills one vision token's square after the other, so that the
    text under a token is one piece."""
    tab_width: PositiveInt = 4
    """Width of a tab in cells of 8 px."""
    atlas: Text = "unifont"
    """Glyphs: `unifont`, or the path of a monospace .ttf or .otf."""
    labels: LabelSection = LabelSection()


class DataSection(Section):
    """Conversations, and how they become samples."""

    path: Annotated[str, form(str.strip, "Name a .jsonl file or a directory of them")] = "data"
    """A .jsonl file or a directory of them."""
    recent_turns: PositiveInt = 1
    """User turns at the end that stay text."""
    eval_fraction: Share = 0.1
    """Share of conversations that is held out, by hash of the id, when no file is named eval*.jsonl."""
    skip_bad: bool = False
    """Leave invalid lines out (they are written to rejects.jsonl) instead of failing."""
    workers: NonNegativeInt = 0
    """Processes for rendering; 0: one a core."""
    shard_conversations: PositiveInt = 512
    """Conversations a shard."""


class CheckSection(Section):
    """Bounds that the dataset must keep."""

    min_compression_ratio: NonNegativeFloat = 0.5
    """Lower bound of the history's text tokens per memory token, of each sample."""
    max_compression_ratio: float = 40.0
    """Upper bound of the same."""
    min_ink_share: Share = 0.001
    """Lower bound of the share of black pixels in the patches that have ink."""
    max_ink_share: Share = 0.5
    """Upper bound of the same."""
    max_warnings: NonNegativeInt | None = None
    """Most warnings about the dataset with which `check` passes; null: any."""


class SmokeSection(Section):
    """The gradient-flow smoke test."""

    samples: PositiveInt = 4
    """Samples that the smoke test runs on."""


class LoraSection(Section):
    """LoRA on the base model, which is then no longer the one that was loaded."""

    rank: Annotated[int, Field(gt=0, le=1024)] = 8
    """Rank of the change of a layer."""
    alpha: PositiveFloat = 16.0
    """The change is scaled by alpha / rank."""
    targets: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Linear layers that are changed, by the last part of their names; null: those of the attention."""


Objective = Literal["align", "transcribe", "continue", "answer", "distil"]


class StageSection(Section):
    """A stage of the training: an objective, for how long, at which learning rate."""

    objective: Objective
    """What proj learns: `align`, `transcribe`, `continue`, `answer` or `distil`."""
    steps: PositiveInt | None = None
    """Its optimizer steps; null: it has a share."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Its share of max_steps, in place of steps."""
    learning_rate: PositiveFloat | None = None
    """Its peak learning rate; null: train.learning_rate."""
    warmup_steps: NonNegativeInt | None = None
    """Its steps of rising learning rate; null: train.warmup_steps."""
    per_device_batch_size: PositiveInt | None = None
    """Samples of one process and forward pass; null: train.per_device_batch_size."""
    mix: dict[Objective, PositiveInt] | None = None
    """Its batches by objective, as in {answer: 2, transcribe: 1}; null: all of its own objective."""


class Stage(NamedTuple):
    """A stage with every setting resolved; see `StageSection`."""

    objective: str
    steps: int
    learning_rate: float
    warmup_steps: int
    per_device_batch_size: int
    mix: dict[str, int]


class TrainSection(Section):
    """Training of proj, and on request of LoRA on the base model."""

    stages: tuple[StageSection, ...] = ()
    """Stages, one after the other: objective, steps or share, learning_rate, warmup_steps, per_device_batch_size, mix;
    none: `answer` over all steps."""
    lora: LoraSection | None = None
    """LoRA on the base model, beside proj: rank (8), alpha (16), targets (null: the attention's projections); null: the
    base stays as it is."""
    max_steps: PositiveInt = 1000
    """Optimizer steps."""
    num_train_epochs: PositiveFloat | None = None
    """Passes over the training samples, which take the place of max_steps; null: max_steps."""
    from_adapter: Text | None = None
    """Directory of an adapter whose proj the training begins with, its optimizer being new; null: random weights."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    per_device_batch_size: PositiveInt = 8
    """Samples of one process and forward pass."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches summed up before an optimizer step."""
    processes: PositiveInt = 1
    """Data-parallel processes that the batch sizes are meant for."""
    global_batch_size: PositiveInt | None = None
    """Samples of an optimizer step: per_device_batch_size x gradient_accumulation_steps x processes; null:
    that product."""
    deepspeed: str | None = None
    """`zero1`, `zero2`, `zero3` or a DeepSpeed JSON file; null: plain data parallel."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """Parts that DeepSpeed keeps in CPU memory; `all`, with zero3 only, is parameters too."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: far less memory, a third more operations."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The same as a share of the steps of the run, or of a stage, rounded down; null: warmup_steps."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Course of the learning rate after warmup."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of AdamW's second moment."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this norm."""
    curriculum: Share = 0.0
    """Share of the steps of each stage over which samples are let in, shortest memory first."""
    transcribe_instruction: Text = "Repeat the notes."
    """User message of `transcribe`, behind the memory."""
    continue_instruction: Text = "Continue the notes."
    """User message of `continue`, behind the memory."""
    distil_top_k: PositiveInt = 32
    """Most likely tokens of the teacher that are stored at each position of an answer, for `distil`."""
    distil_kl_weight: NonNegativeFloat = 2.0
    """Weight of the divergence from the teacher in the loss of `distil`."""
    distil_nll_weight: NonNegativeFloat = 1.0
    """Weight of the loss of `answer` in that of `distil`."""
    packing: bool = False
    """Lay the samples of a batch one behind the other in a single row, instead of padding them to the longest."""
    group_by_length: bool = False
    """Make batches of samples of similar length, which need less padding."""
    loader_workers: NonNegativeInt = 0
    """Processes beside each training process that make batches ahead; 0: it makes them itself, between steps."""
    seed: int = 0
    """Seed of the projector's weights and of the order of samples."""
    logging_steps: PositiveInt = 10
    """Steps between two log lines."""
    save_steps: PositiveInt = 500
    """Steps between two checkpoints."""
    save_total_limit: PositiveInt = 2
    """Checkpoints that are kept."""
    eval_steps: PositiveInt | None = None
    """Steps between two measurements of loss and recall on held-out samples, the last step being one; null: none."""
    eval_samples: PositiveInt = 64
    """Held-out samples with memory that these take."""

    def warmup_of(self, steps: int) -> int:
        """Return the steps of rising learning rate among so many."""
        return self.warmup_steps if self.warmup_ratio is None else math.floor(self.warmup_ratio * steps)

    def objectives(self) -> list[str]:
        """Return what the stages name, each once, in the order in which it comes up."""
        return list(dict.fromkeys(name for stage in self.resolved_stages() for name in (stage.objective, *stage.mix)))

    def resolved_stages(self) -> list[Stage]:
        """Return the stages; without any, `answer` over all steps."""
        stages = self.stages or (StageSection(objective="answer", steps=self.max_steps),)
        sizes = [stage.steps or self.max_steps * (stage.share or 0.0) for stage in stages]
        ends = [0, *(math.floor(end + 0.5) for end in accumulate(sizes[:-1])), self.max_steps]
        return [
            Stage(
                stage.objective,
                end - start,
                self.learning_rate if stage.learning_rate is None else stage.learning_rate,
                self.warmup_of(end - start) if stage.warmup_steps is None else stage.warmup_steps,
                stage.per_device_batch_size or self.per_device_batch_size,
                {str(name): count for name, count in (stage.mix or {stage.objective: 1}).items()},
            )
            for stage, (start, end) in zip(stages, pairwise(ends), strict=True)
        ]


class EvaluateSection(Section):
    """Evaluation on held-out conversations."""

    max_samples: PositiveInt | None = None
    """Held-out samples with memory that are used; null: all."""
    batch_size: PositiveInt = 16
    """Samples at once."""
    max_new_tokens: PositiveInt = 32
    """Tokens of the longest generated answer."""
    examples: PositiveInt = 6
    """Samples shown in evaluation.html with their pages."""


class GateSection(Section):
    """Bounds that an evaluation must meet before the alias moves."""

    min_recall: Share = 0.5
    """Lower bound of recall with memory."""
    min_said: Share | None = None
    """Lower bound of the share of answers with memory in which the right one occurs, in place of min_recall; null: it
    is not asked."""
    max_shuffled_recall: Share = 0.5
    """Upper bound of recall with another conversation's memory."""
    max_shuffled_said: Share | None = None
    """Upper bound of the share with another conversation's memory, in place of max_shuffled_recall; null: it is not
    asked."""
    max_no_memory_recall: Share = 0.5
    """Upper bound of recall without memory."""
    min_loss_gain: float = 0.0
    """Lower bound of the loss with shuffled memory minus the loss with memory."""
    max_warnings: NonNegativeInt | None = None
    """Most warnings about the dataset and the evaluation, such as that memory does not help; null: any."""

    def bounds(self) -> dict[str, float]:
        """Return the bounds of shares of answers that hold, by field: one of `said` takes the place of its `recall`."""
        given = {name: bound for name, bound in self if name.endswith(("recall", "said")) and bound is not None}
        replaced = {name.replace("said", "recall") for name in given if name.endswith("said")}
        return {name: bound for name, bound in given.items() if name not in replaced}


class RegisterSection(Section):
    """The model registry."""

    name: Text = "ocrmem-adapter"
    """Name of the adapter in the registry."""
    uri: Text = "sqlite:///registry/mlflow.db"
    """The registry: sqlite:///file.db or http(s)://host for MLflow, kubeflow+http(s)://host:8080 for the Kubeflow Model
    Registry."""
    store: str | None = None
    """Where packages go for the Kubeflow Model Registry: a directory or s3://bucket/prefix; null with MLflow."""
    endpoint_url: str | None = None
    """Address of the store's S3 service; null: Amazon's."""
    alias: Text = "champion"
    """Moved to a new version whose gate holds, as `promote` says."""
    promote: Literal["better", "passed", "never"] = "better"
    """Which versions whose gate holds get the alias: those `better` than its present one, all (`passed`), or none
    (`never`)."""
    better_by: Literal["recall", "loss_gain"] = "recall"
    """The gate's figure that `better` compares: recall with memory (`said`, where the gate has min_said), or the loss
    gain."""
    gate: GateSection = GateSection()


class VersionSection(Section):
    """The DVC remote that `version` pushes the dataset to."""

    remote: str | None = None
    """A directory or s3://bucket/prefix; null: none is configured."""
    endpoint_url: str | None = None
    """Address of the remote's S3 service; null: Amazon's."""


class TrackingSection(Section):
    """Weights & Biases."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """`online` takes WANDB_API_KEY from the environment."""
    project: Text = "ocrmem"
    """W&B project."""
    entity: str | None = None
    """W&B team or user; null: the key's default."""
    run_name: str | None = None
    """Name of the run; null: W&B makes one."""


class PathsSection(Section):
    """Where verbs write, relative to the working directory."""

    models: Text = "models"
    """The tiny models."""
    dataset: Text = "dataset"
    """Pages and samples."""
    checks: Text = "checks"
    """Result of `check`."""
    features: Text = "features"
    """Feature store."""
    smoke: Text = "smoke"
    """Report of `smoke`."""
    adapter: Text = "adapter"
    """Trained adapter."""
    checkpoints: Text = "checkpoints"
    """Checkpoints to resume from."""
    reports: Text = "."
    """validation.json, train.json, evaluation.json, evaluation.html and registration.json."""
    tracking: Text = "wandb"
    """W&B's files."""

    @property
    def base_model(self) -> Path:
        return Path(self.models) / "base"

    @property
    def encoder(self) -> Path:
        return Path(self.models) / "encoder"

    def report(self, name: str) -> Path:
        return Path(self.reports) / name


class RunSettings(Section):
    """All sections. A section that params.yaml leaves out has its defaults."""

    model: ModelSection = ModelSection()
    base: BaseSection = BaseSection()
    render: RenderSection = RenderSection()
    data: DataSection = DataSection()
    check: CheckSection = CheckSection()
    smoke: SmokeSection = SmokeSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    # Pydantic's model classes have a method `register` of their own (abc.ABCMeta's).
    registry: RegisterSection = Field(default=RegisterSection(), alias="register")
    version: VersionSection = VersionSection()
    tracking: TrackingSection = TrackingSection()
    paths: PathsSection = PathsSection()
    kubernetes: KubernetesSection = KubernetesSection()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values under the names of params.yaml."""
        return self.model_dump(mode="json", by_alias=True)


def field_paths(model: type[BaseModel] = RunSettings, prefix: FieldPath = ()) -> Iterator[FieldPath]:
    """Yield the path of every section and field, by the names that the settings file uses."""
    for name, info in model.model_fields.items():
        path = (*prefix, info.alias or name)
        yield path
        item_path = (*path, ITEM) if get_origin(info.annotation) is tuple else path
        for inner, place in ((info.annotation, path), *((item, item_path) for item in get_args(info.annotation))):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from field_paths(inner, place)

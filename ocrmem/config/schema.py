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
    """Its commit on the hub, to be pinned; null: the main branch."""
    ocr_model_name: Annotated[
        str,
        form(str.strip, "Name the encoder: tiny, english, a hub name such as deepseek-ai/DeepSeek-OCR, or a directory"),
    ] = TINY
    """The frozen encoder: `tiny`, `english` (in the box), a hub name or a directory."""
    ocr_revision: str | None = None
    """Its commit on the hub, to be pinned; null: the main branch."""
    encoder: Literal["native", "deepseek-ocr-encoder"] = "native"
    """What runs the encoder: `native`, transformers' modules, or the package `deepseek-ocr-encoder`."""
    features: Literal["sum", "concat"] = "sum"
    """A vision token is the `sum` of SAM's and CLIP's tokens, or both side by side (`concat`)."""
    vision_embedding_size: PositiveInt = 1024
    """Width of a vision token."""
    context_threshold: NonNegativeInt = 1024
    """Histories of more tokens than this become pages."""
    max_seq_length: PositiveInt = 2048
    """Tokens in the language model's sequence, memory included."""
    drop_blank_tokens: bool = True
    """Leave out the vision tokens of patches without ink."""
    projector_hidden_size: PositiveInt | None = None
    """Width between the projector's layers; null: the language model's."""
    projector_norm: bool = False
    """LayerNorm in front of the projector."""
    projector_output_norm: bool = False
    """RMSNorm behind the projector, beginning at the RMS of the language model's embeddings."""
    encoder_kernels: Literal["auto", "plain", "compiled", "fused"] = "auto"
    """On a GPU, `encode` runs `plain`, `compiled` by torch (a minute first), or `fused`: compiled, with
    the distances of patches added in the attention kernel; `auto`: compiled where the pages pay for it, else plain."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """`float32`, `bfloat16` or `float16` for the frozen models; the projector trains in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if there is one."""

    @property
    def family(self) -> Family:
        """Family of the base model (see `ocrmem.families`)."""
        return family_of(self.base_model_name, self.base_revision)


class BaseSection(Section):
    """Training of the tiny models, and of the encoder `english` with `base --teach`."""

    seed: int = 0
    """First seed."""
    encoder_steps: PositiveInt = 250
    """Steps of the encoder; english needs 3600."""
    lm_steps: PositiveInt = 1300
    """Steps of the language model."""
    text_recall: Share = 0.98
    """Share of questions that the language model must answer from text."""
    max_attempts: PositiveInt = 3
    """Seeds tried before giving up."""


class LabelSection(Section):
    """Labels in front of the messages on a page."""

    system: str = "system: "
    """In front of a system message on a page."""
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
    """Side in px of what a vision token sees: 64 for DeepSeek-OCR, 32 for tiny."""
    line_height: PositiveInt = 16
    """Px from line to line; a glyph is 16 px high."""
    max_pages: PositiveInt = 8
    """Pages of one history; the oldest are dropped."""
    newlines: Literal["break", "flow"] = "break"
    """`break` starts a line at a newline, `flow` draws a visible mark instead."""
    align: Literal["none", "token"] = "none"
    """`none` fills rows as wide as the page, `token` one vision token's square after the other."""
    tab_width: PositiveInt = 4
    """Cells of a tab."""
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
    """Share of conversations held out, by hash of the id, where no file is named eval*.jsonl."""
    skip_bad: bool = False
    """Write invalid lines to rejects.jsonl instead of failing."""
    workers: NonNegativeInt = 0
    """Processes for rendering; 0: one per core."""
    shard_conversations: PositiveInt = 512
    """Conversations in a shard."""


class CheckSection(Section):
    """Bounds that the dataset must keep."""

    min_compression_ratio: NonNegativeFloat = 0.5
    """Fewest text tokens per memory token, in any sample."""
    max_compression_ratio: float = 40.0
    """Most text tokens per memory token."""
    min_ink_share: Share = 0.001
    """Smallest share of black pixels in patches with ink."""
    max_ink_share: Share = 0.5
    """Largest share of them."""
    max_warnings: NonNegativeInt | None = None
    """Most warnings with which `check` passes; null: no limit."""


class SmokeSection(Section):
    """The gradient-flow smoke test."""

    samples: PositiveInt = 4
    """Samples that it runs on."""


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
    """[Stages](train.md#stages): objective, steps or share, learning_rate, warmup_steps, per_device_batch_size, mix;
    none: `answer` over all steps."""
    lora: LoraSection | None = None
    """[LoRA](model.md): rank (8), alpha (16), targets (null: the attention's projections); null: none."""
    max_steps: PositiveInt = 1000
    """Optimizer steps."""
    num_train_epochs: PositiveFloat | None = None
    """Passes over the samples, instead of max_steps."""
    from_adapter: Text | None = None
    """Adapter whose proj, and LoRA, training begins with; null: random weights."""
    drop_lora: bool = False
    """Begin with the proj of `from_adapter` alone, without its LoRA."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    per_device_batch_size: PositiveInt = 8
    """Samples of a process and forward pass."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches summed up for a step."""
    processes: PositiveInt = 1
    """Data-parallel processes."""
    global_batch_size: PositiveInt | None = None
    """Given, it must be per_device_batch_size x gradient_accumulation_steps x processes."""
    deepspeed: str | None = None
    """`zero1`, `zero2`, `zero3` or a DeepSpeed JSON file; null: plain data parallel."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What DeepSpeed keeps in CPU memory: `none`, `optimizer`, or with zero3 `all`, parameters too."""
    activation_checkpointing: bool = False
    """Saves much memory, costs a third more operations."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The same as a share of the steps of the run or stage."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Course of the learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`adamw`, or `muon`: Muon on matrices and AdamW on vectors, without DeepSpeed."""
    weight_decay: NonNegativeFloat = 0.0
    """Of the optimizer."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Larger gradients are scaled down to this norm."""
    curriculum: Share = 0.0
    """Share of each stage's steps over which samples are let in, shortest memory first."""
    transcribe_instruction: Text = "Repeat the notes."
    """User message of `transcribe`."""
    continue_instruction: Text = "Continue the notes."
    """User message of `continue`."""
    distil_top_k: PositiveInt = 32
    """`distil`: the teacher's most likely tokens that are stored per position."""
    distil_kl_weight: NonNegativeFloat = 2.0
    """`distil`: weight of the divergence from the teacher."""
    distil_nll_weight: NonNegativeFloat = 1.0
    """`distil`: weight of the loss of `answer`."""
    packing: bool = False
    """Lay the samples of a batch one behind the other in a row, without padding."""
    compile_layers: bool = False
    """Let torch compile the language model's layers, which takes minutes first; losses change by rounding."""
    group_by_length: bool = False
    """Make batches of samples of like length."""
    loader_workers: NonNegativeInt = 0
    """Processes that make batches ahead for each training process."""
    seed: int = 0
    """Of the projector's weights and the order of samples."""
    logging_steps: PositiveInt = 10
    """Steps between log lines."""
    save_steps: PositiveInt = 500
    """Steps between checkpoints."""
    save_total_limit: PositiveInt = 2
    """Checkpoints that are kept."""
    adapter_precision: Literal["float32", "bfloat16"] = "float32"
    """What the finished adapter's weights are stored in; `bfloat16` takes half the room."""
    eval_steps: PositiveInt | None = None
    """Steps between measurements on held-out samples; null: none."""
    eval_samples: PositiveInt = 64
    """Held-out samples of a measurement."""

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
    """Held-out samples with memory; null: all."""
    batch_size: PositiveInt = 16
    """Samples at once."""
    max_new_tokens: PositiveInt = 32
    """Tokens of the longest generated answer."""
    examples: PositiveInt = 6
    """Samples that evaluation.html shows with their pages."""


class GateSection(Section):
    """Bounds that an evaluation must meet before the alias moves."""

    min_recall: Share = 0.5
    """Least recall with memory."""
    min_said: Share | None = None
    """Least share of answers that contain the right one, instead of min_recall."""
    max_shuffled_recall: Share = 0.5
    """Most recall with another conversation's memory."""
    max_shuffled_said: Share | None = None
    """Most such answers with another's memory, instead of max_shuffled_recall."""
    max_no_memory_recall: Share = 0.5
    """Most recall without memory."""
    min_loss_gain: float = 0.0
    """Least loss with shuffled memory minus loss with memory."""
    max_warnings: NonNegativeInt | None = None
    """Most warnings about dataset and evaluation; null: no limit."""

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
    """MLflow: sqlite:///file.db or http(s)://host; Kubeflow Model Registry: kubeflow+http(s)://host:8080."""
    store: str | None = None
    """Packages, with Kubeflow's registry only: a directory or s3://bucket/prefix."""
    endpoint_url: str | None = None
    """Its S3 service; null: Amazon's."""
    alias: Text = "champion"
    """Alias of the best version."""
    promote: Literal["better", "passed", "never"] = "better"
    """Versions to which it moves: `better` ones, all that have `passed` the gate, or `never`."""
    better_by: Literal["recall", "loss_gain"] = "recall"
    """What is compared: `recall` with memory (with gate.min_said: said), or `loss_gain`."""
    gate: GateSection = GateSection()


class VersionSection(Section):
    """The DVC remote that `version` pushes the dataset to."""

    remote: str | None = None
    """A directory or s3://bucket/prefix."""
    endpoint_url: str | None = None
    """Its S3 service; null: Amazon's."""


class TrackingSection(Section):
    """Weights & Biases."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """`offline`, `disabled`, or `online`, with WANDB_API_KEY from the environment."""
    project: Text = "ocrmem"
    """Project."""
    entity: str | None = None
    """Team or user; null: the key's."""
    run_name: str | None = None
    """Name of the run; null: made up."""


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
    """Checkpoints."""
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

"""RunConfig: every setting of a run, read from params.yaml and ``--set``.

A section sits in one class, a field in one line with what it means. ``RunConfig.load`` lists every fault of
the file at once (`ConfigError`), each with its field and the remedy; the rules that join fields are in
`ocrmem.config_rules`, the ones that need data, a tokenizer or a device in `ocrmem.validation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ocrmem.families import TINY as TINY

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Quantity = Annotated[str, Field(coerce_numbers_to_str=True)]  # of Kubernetes: 4, 500m, 32Gi
PLACEHOLDER_IMAGE = "registry.example.org/ocrmem:0.1.0"


class Section(BaseModel):
    """A section of params.yaml: unknown fields are errors, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSection(Section):
    """The frozen parts, the projector between them, and when text becomes memory."""

    base_model_name: str = TINY  # "tiny", a hub name or a directory holding a causal language model
    base_revision: str | None = None  # commit of the base model; pin it for hub names
    ocr_model_name: str = TINY  # "tiny", a hub name or a directory holding DeepSeek-OCR weights
    ocr_revision: str | None = None
    features: Literal["sum", "concat"] = "sum"  # tokens + CLIP(tokens), or both side by side
    vision_embedding_size: PositiveInt = 1024  # width of one vision token as the encoder gives it
    context_threshold: Annotated[int, Field(ge=0)] = 1024  # histories of more tokens than this become pages
    max_seq_length: PositiveInt = 2048  # tokens in the language model's sequence, memory included
    drop_blank_tokens: bool = True  # leave out the vision tokens of patches without ink
    projector_hidden_size: PositiveInt | None = None  # None: the base model's hidden size
    projector_norm: bool = False  # LayerNorm in front of the projector
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class BaseSection(Section):
    """How the embedded tiny language model and encoder are made; unused with real names."""

    seed: int = 0
    encoder_steps: PositiveInt = 250
    lm_steps: PositiveInt = 1300
    text_recall: Share = 0.98  # the language model is trained on, then reseeded, until it recalls from text
    max_attempts: PositiveInt = 3  # seeds tried before giving up


class LabelSection(Section):
    """What stands in front of a message on a page."""

    system: str = "system: "
    user: str = "user: "
    assistant: str = "assistant: "
    tool: str = "tool: "


class RenderSection(Section):
    """How history text is drawn on pages."""

    page_size: PositiveInt = 1024  # px; 512, 640, 1024 or 1280 for DeepSeek-OCR
    token_size: PositiveInt = 64  # px of page that one vision token sees, as the encoder gives it
    line_height: PositiveInt = 16  # px from one line to the next; cells are 16 px high
    max_pages: PositiveInt = 8  # pages of one history; the oldest are dropped
    newlines: Literal["break", "flow"] = "break"  # flow writes a visible mark instead of starting a line
    tab_width: PositiveInt = 4  # cells
    atlas: str = "unifont"  # "unifont", or the path of a monospace .ttf/.otf
    labels: LabelSection = LabelSection()


class DataSection(Section):
    """Conversations, and how they become samples."""

    path: str = "data"  # a .jsonl file or a directory of them
    recent_turns: PositiveInt = 1  # last user turns that stay text
    eval_fraction: Share = 0.1  # of conversations, by hash of the id, when no file is named eval*.jsonl
    skip_bad: bool = False  # go on without the bad lines (they land in rejects.jsonl)
    workers: Annotated[int, Field(ge=0)] = 0  # processes for rendering; 0: one a core
    shard_conversations: PositiveInt = 512  # conversations a shard


class CheckSection(Section):
    """Bounds that the dataset must keep."""

    min_compression_ratio: float = 0.5  # history text tokens per memory token, a sample
    max_compression_ratio: float = 40.0
    min_ink_share: Share = 0.001  # black pixels of the patches that have ink
    max_ink_share: Share = 0.5


class SmokeSection(Section):
    """The gradient-flow smoke test."""

    samples: PositiveInt = 4


class TrainSection(Section):
    """Training of proj."""

    max_steps: PositiveInt = 1000
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    per_device_batch_size: PositiveInt = 8
    gradient_accumulation_steps: PositiveInt = 1
    processes: PositiveInt = 1  # data-parallel processes that the batch sizes are meant for
    global_batch_size: PositiveInt | None = None  # if given: per_device x accumulation x processes
    deepspeed: str | None = None  # zero1, zero2, zero3 or a DeepSpeed JSON file; None: plain data parallel
    offload: Literal["none", "optimizer", "all"] = "none"  # what DeepSpeed keeps in CPU memory; all: zero3 only
    activation_checkpointing: bool = False  # compute activations again in backward: far less memory, more time
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    target_loss: Annotated[float, Field(gt=0)] | None = None  # begin anew from another seed while the loss stays above
    max_attempts: PositiveInt = 1  # seeds tried for target_loss; the best one is kept
    curriculum: Share = 0.0  # share of the steps over which samples are let in, shortest memory first
    group_by_length: bool = False  # batches of samples of like length, which need less padding
    loader_workers: Annotated[int, Field(ge=0)] = 0  # processes beside each training process that make batches ahead
    seed: int = 0
    logging_steps: PositiveInt = 10
    save_steps: PositiveInt = 500
    save_total_limit: PositiveInt = 2


class EvaluateSection(Section):
    """Evaluation on held-out conversations."""

    max_samples: PositiveInt | None = None  # None: all held-out samples with memory
    batch_size: PositiveInt = 16
    max_new_tokens: PositiveInt = 32
    examples: PositiveInt = 6  # shown in evaluation.html with their pages


class GateSection(Section):
    """What an evaluation must show before the alias moves."""

    min_recall: Share = 0.5  # with memory
    max_shuffled_recall: Share = 0.5
    max_no_memory_recall: Share = 0.5
    min_loss_gain: float = 0.0  # shuffled loss minus memory loss


class RegisterSection(Section):
    """The model registry."""

    name: str = "ocrmem-adapter"
    uri: str = "sqlite:///registry/mlflow.db"  # or http(s)://mlflow.example.org, or kubeflow+http(s)://registry:8080
    store: str | None = None  # where packages go for the Kubeflow Model Registry: a directory or s3://bucket/prefix
    endpoint_url: str | None = None  # of the store's S3 service, where that is not Amazon's
    alias: str = "champion"
    gate: GateSection = GateSection()


class VersionSection(Section):
    """The DVC remote that `version` pushes the dataset to."""

    remote: str | None = None  # a directory or s3://bucket/prefix; null: none is configured
    endpoint_url: str | None = None  # of the remote's S3 service, where that is not Amazon's


class TrackingSection(Section):
    """Weights & Biases."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "ocrmem"
    entity: str | None = None
    run_name: str | None = None


class VolumeSection(Section):
    """A PersistentVolumeClaim in the pods of a training job."""

    claim: str | None  # null: not mounted
    path: str  # where it is mounted
    read_only: bool


class DatasetVolume(VolumeSection):
    claim: str | None = "ocrmem-dataset"
    path: str = "/workspace/dataset"
    read_only: bool = True


class FeaturesVolume(VolumeSection):
    claim: str | None = "ocrmem-features"
    path: str = "/workspace/features"
    read_only: bool = True


class ModelsVolume(VolumeSection):
    claim: str | None = "ocrmem-models"
    path: str = "/workspace/models"
    read_only: bool = False  # the hub's cache writes to it


class OutputVolume(VolumeSection):
    claim: str | None = "ocrmem-output"
    path: str = "/workspace/output"
    read_only: bool = False


class VolumesSection(Section):
    """What a training job reads and writes; paths.* in the pods are made from these."""

    dataset: DatasetVolume = DatasetVolume()
    features: FeaturesVolume = FeaturesVolume()
    models: ModelsVolume = ModelsVolume()
    output: OutputVolume = OutputVolume()


class KubernetesSection(Section):
    """Training as a Kubeflow TrainJob (`ocrmem train --launcher kubernetes`); docs/kubernetes.md."""

    context: str | None = None  # of the kubeconfig; null: the current one, or the pod's service account
    namespace: str = "ocrmem"
    image: str = PLACEHOLDER_IMAGE
    image_pull_secrets: list[str] = []  # names of Secrets
    runtime: str = "ocrmem-deepspeed"  # a ClusterTrainingRuntime
    nodes: PositiveInt = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 1  # 0: CPU, one process a node
    gpu_resource: str = "nvidia.com/gpu"
    cpu: Quantity = "4"  # requested, a node
    memory: Quantity = "32Gi"  # requested, a node; /dev/shm counts
    cpu_limit: Quantity | None = None  # null: as requested
    memory_limit: Quantity | None = None  # null: as requested
    shm_size: Quantity | None = "8Gi"  # /dev/shm, in memory; null: the container engine's 64 MiB
    volumes: VolumesSection = VolumesSection()
    secret_name: str | None = "ocrmem-secrets"  # Secret whose secret_variables become environment variables
    secret_variables: list[str] = [
        "WANDB_API_KEY",
        "HF_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    ]  # keys of secret_name; those that it does not hold are left out
    secret_env: list[str] = []  # VARIABLE=SECRET/KEY; the pods do not start without them
    env: dict[str, str] = {}  # plain variables
    tolerations: list[str] = []  # as `kubectl taint` writes them: key=value:Effect, key:Effect or key
    node_selector: dict[str, str] = {}
    labels: dict[str, str] = {}  # of the TrainJob and its pods
    queue: str | None = None  # Kueue's LocalQueue
    priority: str | None = None  # Kueue's WorkloadPriorityClass
    service_account: str = "ocrmem"
    termination_grace_seconds: PositiveInt = 120  # from SIGTERM to SIGKILL; a checkpoint must fit in
    active_deadline_seconds: PositiveInt | None = None  # the job is failed after that
    backoff_limit: Annotated[int, Field(ge=0)] = 3  # new starts, with --resume, after a preemption or a lost node
    pending_timeout_seconds: PositiveInt = 600  # unschedulable, or stuck before its start, for longer: failed
    api_timeout_seconds: PositiveInt = 600  # an API server that does not answer for longer: given up
    on_interrupt: Literal["keep", "delete"] = "keep"  # the job, when the launcher is stopped


class PathsSection(Section):
    """Where verbs write, relative to the working directory."""

    models: str = "models"
    dataset: str = "dataset"
    checks: str = "checks"
    features: str = "features"
    smoke: str = "smoke"
    adapter: str = "adapter"
    checkpoints: str = "checkpoints"
    reports: str = "."  # validation.json, train.json, evaluation.json/.html, registration.json
    tracking: str = "wandb"

    @property
    def base_model(self) -> Path:
        return Path(self.models) / "base"

    @property
    def encoder(self) -> Path:
        return Path(self.models) / "encoder"

    def report(self, name: str) -> Path:
        return Path(self.reports) / name


class RunConfig(Section):
    """All sections. A section that params.yaml leaves out has its defaults."""

    model: ModelSection = ModelSection()
    base: BaseSection = BaseSection()
    render: RenderSection = RenderSection()
    data: DataSection = DataSection()
    check: CheckSection = CheckSection()
    smoke: SmokeSection = SmokeSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    register_: RegisterSection = Field(default=RegisterSection(), alias="register")
    version: VersionSection = VersionSection()
    tracking: TrackingSection = TrackingSection()
    paths: PathsSection = PathsSection()
    kubernetes: KubernetesSection = KubernetesSection()

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)

    @classmethod
    def load(cls, path: Path | str = "params.yaml", overrides: Sequence[str] = ()) -> RunConfig:
        """Read a configuration and apply ``key.path=value`` overrides (values are YAML).

        Raises:
            ConfigError: with one problem for every fault of the file, the overrides and the cross-field
                rules together.
        """
        from ocrmem.config_rules import load_config

        return load_config(Path(path), overrides)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, place: str = "configuration") -> RunConfig:
        """The same checks as `load`, on a dict."""
        from ocrmem.config_rules import check_values

        return check_values(values, place)

    def as_dict(self) -> dict[str, Any]:
        """Plain values with the names of params.yaml."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def base_location(self) -> str:
        """Where the language model loads from: the built tiny one, or the configured name."""
        return str(self.paths.base_model) if self.model.base_model_name == TINY else self.model.base_model_name

    @property
    def encoder_location(self) -> str:
        """Where the encoder loads from: the built tiny one, or the configured name."""
        return str(self.paths.encoder) if self.model.ocr_model_name == TINY else self.model.ocr_model_name

"""Conversations in, a registered adapter out: every verb as a task, one after the other."""

from kfp import dsl

from components.build_base import build_base
from components.check_gate import check_gate
from components.encode_pages import encode_pages
from components.evaluate_adapter import evaluate_adapter
from components.preflight import preflight
from components.register_adapter import register_adapter
from components.render_dataset import render_dataset
from components.smoke_test import smoke_test
from components.summarise_run import summarise_run
from components.train_adapter import train_adapter
from components.validate_config import validate_config
from components.validate_dataset import validate_dataset
from components.version_dataset import version_dataset
from ocrmem.workflow.settings import PipelineSettings
from pipelines.placing import Placing

STEPS = [
    "validate", "preflight", "base", "render", "check", "version", "encode", "smoke", "train", "evaluate", "gate",
    "register",
]  # fmt: skip


def build(settings: PipelineSettings, default_params: str) -> dsl.base_component.BaseComponent:
    """The pipeline for these compile-time settings.

    Args:
        default_params: the text of params.yaml that a run without the parameter ``params`` uses.
    """

    @dsl.pipeline(
        name="adapter-training",
        description="Checks settings and data, renders, versions, smoke-tests, trains proj, evaluates and registers.",
    )
    def adapter_training(
        params: str = default_params,
        overrides: list = [],  # noqa: B006  # kfp reads defaults, nobody changes this one
        data: str = "",
        image: str = settings.image,
        secret: str = "ocrmem-secrets",
        gpus: str = "0",
        gpu_type: str = "nvidia.com/gpu",
        tolerations: list = [],  # noqa: B006
        node_selector: dict = {},  # noqa: B006
    ) -> None:
        placing = Placing(settings, image, secret)
        gpu = {"gpus": gpus, "gpu_type": gpu_type, "tolerations": tolerations, "node_selector": node_selector}
        last = placing.place(summarise_run(pipeline="adapter_training", steps=STEPS), cached=False)
        with dsl.ExitHandler(last, name="run"):
            # Not cached: what lies at `data` may have changed under the same name, and services may have gone.
            validated = placing.place(validate_config(params=params, overrides=overrides, data=data), cached=False)
            of = validated.outputs
            # Its own pod is not the one that trains: it has no GPU, and another disk.
            elsewhere = "kubernetes" if settings.launcher == "kubernetes" else "none"
            ready = placing.place(preflight(settings=of["preflight"], launcher=elsewhere), cached=False, network=True)
            base = placing.place(build_base(settings=of["base"]), cached=True, network=True).after(ready)
            rendered = placing.place(
                render_dataset(settings=of["render"], data=data, data_sha256=of["data_sha256"]), cached=True
            ).after(base)
            dataset = rendered.outputs["dataset"]
            checked = placing.place(validate_dataset(settings=of["check"], dataset=dataset), cached=True)
            versioned = placing.place(
                version_dataset(settings=of["version"], dataset=dataset), cached=False, network=True
            ).after(checked)
            made = {"dataset": dataset, "models": base.outputs["models"]}
            encoded = placing.place_on_gpu(encode_pages(settings=of["encode"], **made), cached=True, **gpu)
            encoded.after(versioned)
            made["features"] = encoded.outputs["features"]
            smoked = placing.place_on_gpu(smoke_test(settings=of["smoke"], **made), cached=True, **gpu)
            # Tried again after a preemption: it goes on from its newest checkpoint.
            training = train_adapter(settings=of["train"], launcher=settings.launcher, **made)
            trained = placing.place_training(training, **gpu).after(smoked)
            learnt = {"adapter": trained.outputs["adapter"], "training": trained.outputs["training"]}
            evaluated = placing.place_on_gpu(
                evaluate_adapter(settings=of["evaluate"], **made, **learnt), cached=True, **gpu
            )
            evaluation = evaluated.outputs["evaluation"]
            gate = placing.place(check_gate(settings=of["gate"], evaluation=evaluation), cached=True)
            registered = register_adapter(
                settings=of["register"],
                **learnt,
                evaluation=evaluation,
                verdict=smoked.outputs["verdict"],
                dataset=dataset,
                versioned=versioned.outputs["versioned"],
            )
            placing.place(registered, cached=False, network=True).after(gate)

    return adapter_training

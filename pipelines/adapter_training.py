"""Conversations in, a registered adapter out: every verb as a task, one after the other."""

from kfp import dsl

from components.summarise_run import summarise_run
from ocrmem.steps import TASKS
from ocrmem.workflow.compile_settings import PipelineSettings
from pipelines.chain import Chain
from pipelines.placing import Placing


def build(settings: PipelineSettings, default_params: str) -> dsl.base_component.BaseComponent:
    """Make the pipeline for these compile-time settings.

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
        placing = Placing(settings, image, secret, gpus, gpu_type, tolerations, node_selector)
        last = placing.place(summarise_run(pipeline="adapter_training", steps=list(TASKS)), None)
        given = {
            "validate": {"params": params, "overrides": overrides, "data": data},
            # Its own pod is not the one that trains: it has no GPU, and another disk.
            "preflight": {"launcher": "kubernetes" if settings.launcher == "kubernetes" else "none"},
            "render": {"data": data},
            "train": {"launcher": settings.launcher},
        }
        with dsl.ExitHandler(last, name="run"):
            chain = Chain(placing)
            for step in TASKS:
                chain.add(step, **given.get(step, {}))

    return adapter_training

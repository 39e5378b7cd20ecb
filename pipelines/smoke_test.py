"""Do gradients flow? A slice of the data, rendered, encoded and tested: what CI triggers."""

from kfp import dsl

from components.summarise_run import summarise_run
from ocrmem.workflow.compile_settings import PipelineSettings
from pipelines.chain import Chain
from pipelines.placing import Placing

STEPS = ["validate", "base", "render", "encode", "smoke"]


def build(settings: PipelineSettings, default_params: str) -> dsl.base_component.BaseComponent:
    """Make the pipeline for these compile-time settings.

    Args:
        default_params: the text of params.yaml that a run without the parameter ``params`` uses.
    """

    @dsl.pipeline(
        name="gradient-smoke-test",  # not "smoke-test": kfp takes a pipeline for its component of the same name
        description="Renders a slice of the data and tests that gradients reach proj.",
    )
    def smoke_test(
        params: str = default_params,
        overrides: list = [],  # noqa: B006  # kfp reads defaults, nobody changes this one
        data: str = "",
        conversations: int = 16,
        image: str = settings.image,
        secret: str = "ocrmem-secrets",
        gpus: str = "0",
        gpu_type: str = "nvidia.com/gpu",
        tolerations: list = [],  # noqa: B006
        node_selector: dict = {},  # noqa: B006
    ) -> None:
        placing = Placing(settings, image, secret, gpus, gpu_type, tolerations, node_selector)
        last = placing.place(summarise_run(pipeline="smoke_test", steps=STEPS), None)
        with dsl.ExitHandler(last, name="run"):
            chain = Chain(placing)
            chain.add("validate", params=params, overrides=overrides, data=data)
            chain.add("base")
            chain.add("render", data=data, conversations=conversations)
            chain.add("encode")
            chain.add("smoke", cached=False)  # it is what the run is for

    return smoke_test

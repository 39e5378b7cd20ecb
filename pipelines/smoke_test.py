"""Do gradients flow? A slice of the data, rendered, encoded and tested: what CI triggers."""

from kfp import dsl

from components.build_base import build_base
from components.encode_pages import encode_pages
from components.render_dataset import render_dataset
from components.smoke_test import smoke_test as test_gradients
from components.summarise_run import summarise_run
from components.validate_config import validate_config
from ocrmem.workflow.settings import PipelineSettings
from pipelines.placing import Placing

STEPS = ["validate", "base", "render", "encode", "smoke"]


def build(settings: PipelineSettings, default_params: str) -> dsl.base_component.BaseComponent:
    """The pipeline for these compile-time settings.

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
        placing = Placing(settings, image, secret)
        gpu = {"gpus": gpus, "gpu_type": gpu_type, "tolerations": tolerations, "node_selector": node_selector}
        last = placing.place(summarise_run(pipeline="smoke_test", steps=STEPS), cached=False)
        with dsl.ExitHandler(last, name="run"):
            validated = placing.place(validate_config(params=params, overrides=overrides, data=data), cached=False)
            of = validated.outputs
            base = placing.place(build_base(settings=of["base"]), cached=True, network=True)
            rendered = render_dataset(
                settings=of["render"], data=data, data_sha256=of["data_sha256"], conversations=conversations
            )
            placing.place(rendered, cached=True).after(base)
            made = {"dataset": rendered.outputs["dataset"], "models": base.outputs["models"]}
            encoded = placing.place_on_gpu(encode_pages(settings=of["encode"], **made), cached=True, **gpu)
            made["features"] = encoded.outputs["features"]
            placing.place_on_gpu(test_gradients(settings=of["smoke"], **made), cached=False, **gpu)

    return smoke_test

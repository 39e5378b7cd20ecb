"""The task `smoke_test`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def smoke_test(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    models: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    verdict: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
):
    """Show on a few samples that gradients reach proj and nothing else.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        dataset: from render_dataset.
        models: from build_base.
        features: from encode_pages.
        verdict: report.json, which register_adapter needs.
        report: the same as a page.
    """
    from ocrmem.workflow import tasks

    tasks.smoke(settings, dataset, models, features, verdict, report)

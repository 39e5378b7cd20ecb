"""The task `validate_dataset`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate_dataset(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    checks: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.Markdown],
):
    """Check the dataset's quality with Great Expectations.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        dataset: from render_dataset.
        checks: result.json and index.html, a page of the same.
        report: every expectation in one table.
    """
    from ocrmem.workflow import tasks

    tasks.check(settings, dataset, checks, report)

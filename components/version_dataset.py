"""The task `version_dataset`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def version_dataset(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    versioned: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.Markdown],
):
    """Put the dataset under DVC and push it to version.remote; skipped where there is none.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        dataset: from render_dataset.
        versioned: version.json and dataset.dvc; the hash and the remote are its metadata.
        report: the same for a person.
    """
    from ocrmem.workflow import tasks

    tasks.version(settings, dataset, versioned, report)

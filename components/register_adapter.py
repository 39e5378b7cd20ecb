"""The task `register_adapter`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_adapter(
    settings: str,
    adapter: dsl.Input[dsl.Model],
    training: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    versioned: dsl.Input[dsl.Artifact],
    package: dsl.Output[dsl.Model],
):
    """Package and register the adapter. An unmet gate fails the task: the version is tagged, the alias stays.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        adapter: from train_adapter.
        training: from train_adapter.
        evaluation: from evaluate_adapter.
        verdict: from smoke_test.
        dataset: from render_dataset.
        versioned: from version_dataset.
        package: the package as it was registered.
    """
    from ocrmem.workflow import tasks

    tasks.register(settings, adapter, training, evaluation, verdict, dataset, versioned, package)

"""The task `encode_pages`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def encode_pages(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    models: dsl.Input[dsl.Model],
    features: dsl.Output[dsl.Dataset],
):
    """Encode every page once into the feature store.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        dataset: from render_dataset.
        models: from build_base.
        features: the feature store.
    """
    from ocrmem.workflow import tasks

    tasks.encode(settings, dataset, models, features)

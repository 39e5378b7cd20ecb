"""The task `train_adapter`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_adapter(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    models: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    adapter: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    launcher: str = "local",
):
    """Train proj.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        dataset: from render_dataset.
        models: from build_base.
        features: from encode_pages.
        adapter: adapter.safetensors and config.json.
        training: train.json and the curve of the loss.
        metrics: first and last loss, steps, tokens, seconds.
        launcher: local: in this pod; kubernetes: in a Kubeflow TrainJob that this task makes and follows.
    """
    from ocrmem.workflow import tasks

    tasks.train(settings, launcher, dataset, models, features, adapter, training, metrics)

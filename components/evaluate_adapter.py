"""The task `evaluate_adapter`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_adapter(
    settings: str,
    adapter: dsl.Input[dsl.Model],
    training: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    models: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Compare memory with its baselines on held-out conversations.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        adapter: from train_adapter.
        training: from train_adapter.
        dataset: from render_dataset.
        models: from build_base.
        features: from encode_pages.
        evaluation: evaluation.json.
        report: the same as a page, with charts and examples.
        metrics: recall and loss of each variant, and the compression ratio.
    """
    from ocrmem.workflow import tasks

    tasks.evaluate(settings, adapter, training, dataset, models, features, evaluation, report, metrics)

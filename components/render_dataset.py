"""The task `render_dataset`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def render_dataset(
    settings: str,
    data: str,
    data_sha256: str,
    dataset: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    conversations: int = 0,
):
    """Draw conversations on pages and write the dataset.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        data: as for validate_config.
        data_sha256: from validate_config; other data is refused, and the cache depends on it.
        dataset: samples and pages in parquet shards.
        metrics: counts and the compression ratio.
        conversations: the first so many of each file only; 0: all.
    """
    from ocrmem.workflow import tasks

    tasks.render(settings, data, data_sha256, conversations, dataset, metrics)

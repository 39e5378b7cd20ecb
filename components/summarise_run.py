"""The task `summarise_run`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def summarise_run(
    pipeline: str,
    steps: list,
    report: dsl.Output[dsl.Markdown],
    status: dsl.PipelineTaskFinalStatus,
):
    """Write a summary of the run, however it ended. The exit handler of the pipelines.

    Args:
        pipeline: its name.
        steps: the verbs in their order.
        report: status, seconds and figures of every task, and the problems of the one that failed.
        status: given by Kubeflow Pipelines.
    """
    from ocrmem.workflow import summary

    summary.summarise(pipeline, steps, status.state, status.error_message or "", report)

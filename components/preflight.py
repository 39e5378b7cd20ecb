"""The task `preflight`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preflight(
    settings: str,
    report: dsl.Output[dsl.Markdown],
    launcher: str = "local",
):
    """Check secrets, registry, runtime and quota before a GPU is asked for.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        report: what was checked.
        launcher: as for train_adapter; with kubernetes the cluster is asked for its runtime, rights and quota.
    """
    from ocrmem.workflow import preparing

    preparing.preflight(settings, launcher, report)

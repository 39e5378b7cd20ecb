"""The task `preflight`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preflight(
    settings: str,
    report: dsl.Output[dsl.Markdown],
    launcher: str = "local",
):
    """Check secrets, registry, runtime and quota before requesting a GPU.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        report: the checks.
        launcher: local: check this pod's device and disk too; kubernetes: the cluster's runtime, rights and quota;
            none: neither.
    """
    from ocrmem.workflow import tasks

    tasks.preflight(settings, launcher, report)

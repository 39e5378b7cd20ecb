"""The task `build_base`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def build_base(
    settings: str,
    models: dsl.Output[dsl.Model],
):
    """Build the tiny language model and encoder, or load the named ones once.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        models: base/ and encoder/ of the tiny preset; empty with real names.
    """
    from ocrmem.workflow import tasks

    tasks.base(settings, models)

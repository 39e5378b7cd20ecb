"""The task `check_gate`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check_gate(
    settings: str,
    evaluation: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Markdown],
) -> bool:
    """Compare the evaluation with register.gate and show it; register_adapter acts on it.

    Args:
        settings: this task's, from validate_config; or the text of any params.yaml.
        evaluation: from evaluate_adapter.
        report: every line of the gate with its value and bound.

    Returns:
        Whether the gate is met.
    """
    from ocrmem.workflow import tasks

    return tasks.gate(settings, evaluation, report)

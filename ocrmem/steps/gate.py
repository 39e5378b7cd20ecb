"""The step ``gate``: a task of pipelines only. The commands ``evaluate`` and ``register`` show the gate as well."""

from ocrmem.steps.step import Step

STEP = Step(
    name="gate",
    help="compare the evaluation with the gate and show it",
    group="release",
    function="ocrmem.evaluation.gate:gate_lines",
    page="pipelines.md",
    is_command=False,
    takes_config=False,
    reads=("evaluation.json",),
    settings=("register",),
    component="check_gate",
    cached=True,
)

"""The steps, each written once: a file a verb.

From these are made: the command line, ``ocrmem.VERB``, the settings and the placing of tasks, the pipelines' lists,
`make clean` and the table in docs/index.md. dvc.yaml, components/ and docs/ are tested against them.

docs/extending.md shows how to add one. Nothing here imports what a step does.
"""

from ocrmem.steps import (
    ask,
    base,
    chat,
    check,
    convert,
    encode,
    evaluate,
    gate,
    generate,
    import_adapter,
    pipeline,
    preflight,
    prose,
    register,
    render,
    smoke,
    synth,
    train,
    validate,
    version,
)
from ocrmem.steps.step import GROUPS, Step

# In the order in which a pipeline runs them, then the commands beside it.
STEPS: dict[str, Step] = {
    module.STEP.name: module.STEP
    for module in (
        validate,
        preflight,
        base,
        render,
        check,
        version,
        encode,
        smoke,
        train,
        evaluate,
        gate,
        register,
        generate,
        ask,
        chat,
        pipeline,
        convert,
        synth,
        prose,
        import_adapter,
    )
}
COMMANDS = {name: step for name, step in STEPS.items() if step.is_command}
TASKS = {name: step for name, step in STEPS.items() if step.component}

__all__ = ["COMMANDS", "GROUPS", "STEPS", "TASKS", "Step"]

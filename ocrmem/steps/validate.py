"""The step ``validate``."""

from ocrmem.steps.step import Arguments, Step, load


def _validate_file(step: Step, arguments: Arguments) -> dict[str, object]:
    # Of a file that does not load it lists the data's faults too.
    return load("ocrmem.validation:validate_file")(arguments.config, arguments.set)


STEP = Step(
    name="validate",
    help="check settings and data; list every fault at once",
    group="dataset",
    example="ocrmem validate --set data.path=converted",
    function="ocrmem.validation:validate",
    page="validate.md",
    call=_validate_file,
    reads=("data",),
    writes=("validation.json",),
    settings=("model", "render", "data"),
    is_stage=True,
    component="validate_config",
)

"""Steps as tasks of a pipeline: what the components call, and what `ocrmem pipeline` does with the compiled files.

`tasks` holds one function a component, `task` what they share, `training_job` the one that trains elsewhere, `records`
and `summary` what is reported of a run. `compile_settings`, `compiling`, `compiled`, `local` and `submitting` are
behind the sub-commands.
"""

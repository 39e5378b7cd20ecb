"""Verbs as tasks of a pipeline: what the components call, and what `ocrmem pipeline` does with the compiled files.

`task` runs a verb between artifacts, with the settings that `sections` has for it; `preparing` and `learning` hold one
function a component, `training_job` the one that trains elsewhere; `records` and `summary` say what happened.
`packages`, `local`, `submitting`, `compiling` and `settings` are behind the sub-commands.
"""

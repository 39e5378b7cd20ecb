"""The tasks of a pipeline one after the other, each fed by name from those before it."""

import importlib
from dataclasses import dataclass, field
from typing import Any

from kfp import dsl

from ocrmem.steps import TASKS
from pipelines.placing import Placing


@dataclass
class Chain:
    """Tasks in the order in which they are added: none runs past the failure of another.

    Attributes:
        placing: where they run.
        made: outputs by name, each an input of the later tasks that ask for it; of `validate`, each task's settings.
    """

    placing: Placing
    made: dict[str, Any] = field(default_factory=dict)
    _settings: dict[str, Any] = field(default_factory=dict)
    _last: dsl.PipelineTask | None = None

    def add(self, name: str, *, cached: bool | None = None, **given: Any) -> None:
        """Add the task of a step.

        Args:
            cached: instead of what the step says.
            given: inputs that no task makes.
        """
        step = TASKS[name]
        component = getattr(importlib.import_module(f"components.{step.component}"), str(step.component))
        known = {**self.made, **given}
        if name in self._settings:
            known["settings"] = self._settings[name]
        task = component(**{key: known[key] for key in component.component_spec.inputs if key in known})
        self.placing.place(task, step, cached=cached)
        if self._last is not None:
            task.after(self._last)
        self._last = task
        if name == "validate":
            self._settings = {key: task.outputs[key] for key in task.outputs if key in TASKS}
            self.made["data_sha256"] = task.outputs["data_sha256"]
        else:
            self.made.update(task.outputs)

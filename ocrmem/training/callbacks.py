"""Callbacks of the training loop: the progress bar, the tracked run, a request to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ocrmem import console
from ocrmem.signals import on_signals
from ocrmem.tracking import Run
from ocrmem.training import collectives, optimizer_state

if TYPE_CHECKING:
    from ocrmem.training.trainer import AdapterOnlyTrainer

Logs = dict[str, float] | None
_TRACKED = ("loss", "eval_loss")  # what an entry of the log has that is worth sending
# Of the log, on the progress bar: how it is called and written there.
_SHOWN = {
    "loss": ("loss", ".4f"), "tokens_per_second": ("tokens/s", ",.0f"), "mfu": ("MFU", ".2f"),
    "peak_memory_gib": ("peak GiB", ".1f"),
}  # fmt: skip


@dataclass(eq=False)
class BarCallback(TrainerCallback):
    """Moves a progress bar and writes the newest loss on it."""

    bar: console.Bar

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.bar.set_completed(state.global_step, state.max_steps)

    on_step_end = on_train_begin

    def on_log(self, args: Any, state: Any, control: Any, logs: Logs = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            stage = f", stage {logs['stage']}" if "stage" in logs else ""
            shown = [f"{name} {logs[key]:{form}}" for key, (name, form) in _SHOWN.items() if key in logs]
            self.bar.describe(f"train{stage} ({', '.join(shown)})")


@dataclass(eq=False)
class TrackingCallback(TrainerCallback):
    """Sends the log to a tracked run; a resumed run first sends what was logged before."""

    run: Run

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        for entry in state.log_history:
            self._send(entry, int(entry["step"]))

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Logs = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and not logs.keys().isdisjoint(_TRACKED):
            self._send(logs, state.global_step)

    def _send(self, logs: dict[str, float], step: int) -> None:
        named = {name.replace("eval_", "eval/") if name.startswith("eval_") else f"train/{name}": value
                 for name, value in logs.items() if name != "step"}  # fmt: skip
        self.run.log({name: float(value) for name, value in named.items()}, step)


@dataclass(eq=False)
class StopCallback(TrainerCallback):
    """Ends the training with a checkpoint after the step in which any process was asked to stop.

    A signal reaches the processes at different moments, and some not at all, so they agree after each step: all save
    the same one.

    Attributes:
        signal: the first SIGINT or SIGTERM that came while `stop_on_signal` holds.
    """

    signal: int | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        (agreed,) = collectives.all_max([self.signal or 0], args.device)
        if agreed and state.global_step < state.max_steps:
            self.signal = agreed
            control.should_save = True
            control.should_training_stop = True


@dataclass(eq=False)
class LoopEvents(TrainerCallback):
    """The events of Trainer's loop at which `AdapterOnlyTrainer` acts."""

    trainer: AdapterOnlyTrainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.restore_progress(state)

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.seed_missing_random_states(state.global_step)
        stages = self.trainer.stages
        if stages is not None and state.global_step in stages.starts[1:]:
            optimizer_state.forget(self.trainer.optimizer)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        stages = self.trainer.stages
        ends = stages.starts[1:] if stages is not None else []  # no entry of the log mixes the losses of two stages
        # The shortest run has a loss to show, and a measurement on held-out samples has one beside it.
        if control.should_evaluate or state.global_step in (1, *ends, state.max_steps):
            control.should_log = True

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.settle_step()


@contextmanager
def stop_on_signal() -> Iterator[StopCallback]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one has its usual effect at once.

    Outside the main thread, where Python takes no handlers, the signals are left alone.
    """
    stop = StopCallback()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int) -> None:
        stop.signal = number
        console.note("Stopping after this step, with a checkpoint. Send it again to stop at once.")

    def insist(number: int) -> None:
        signal.signal(number, before[signal.Signals(number)])
        signal.raise_signal(number)

    with on_signals(ask, insist):
        yield stop

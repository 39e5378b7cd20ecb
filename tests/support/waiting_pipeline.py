"""A small pipeline whose second task waits until it is stopped."""

# No `from __future__ import annotations`: kfp reads them.
from kfp import dsl

from components.summarise_run import summarise_run


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def first(params: str, overrides: list):
    from ocrmem.workflow.task import running

    with running("base", "{}") as task:
        task.done(["made"])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def second(kind: str):
    """Wait as training does, which answers a signal with a checkpoint; or as other work does; or deaf."""
    import signal
    import time

    from ocrmem.errors import PreemptedError
    from ocrmem.signals import on_signals
    from ocrmem.workflow.records import run_directory
    from ocrmem.workflow.task import running

    with running("train", "{}") as task:
        checkpoint = run_directory() / "checkpoint"
        if checkpoint.exists():
            task.done(["resumed"])
            return
        stopped: list[int] = []
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if kind != "training":
            (run_directory() / "waits").touch()
            time.sleep(600)
        with on_signals(stopped.append, stopped.append):
            (run_directory() / "waits").touch()
            while not stopped:
                time.sleep(0.02)
        checkpoint.touch()
        raise PreemptedError.of("train", "was stopped by SIGTERM after step 3", "Resume with `ocrmem train --resume`")


@dsl.pipeline(name="waiting")
def waiting(params: str = "", overrides: list = [], kind: str = "training") -> None:  # noqa: B006
    with dsl.ExitHandler(summarise_run(pipeline="waiting", steps=["base", "train"])):
        begun = first(params=params, overrides=overrides)
        second(kind=kind).set_caching_options(False).after(begun)

"""The task `validate_config`."""

from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate_config(
    params: str,
    overrides: list,
    data: str,
    report: dsl.Output[dsl.Markdown],
) -> NamedTuple(
    "Validated",
    [
        ("data_sha256", str),
        ("preflight", str),
        ("base", str),
        ("render", str),
        ("check", str),
        ("version", str),
        ("encode", str),
        ("smoke", str),
        ("train", str),
        ("evaluate", str),
        ("gate", str),
        ("register", str),
    ],
):
    """Check settings and data, and report every fault at once.

    Args:
        params: the text of params.yaml.
        overrides: "key.path=value", as for --set.
        data: conversations: a path in the pod or s3://bucket/prefix; empty: data.path of the settings.
        report: counts of conversations and samples.

    Returns:
        The sha256 of the conversations, and for every other task the settings that it reads: a task runs again when
        one of these changes, and not for another.
    """
    from ocrmem.workflow import tasks

    return tasks.validate(params, overrides, data, report)

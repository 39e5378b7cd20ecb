"""Rewrite k8s/overlays/*/trainjob/trainjob.yaml with what the command in the comment beside each prints.

make manifests
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

from ocrmem.cli import main
from ocrmem.files import write_text

ROOT = Path(__file__).resolve().parent.parent
DIRECTORIES = sorted((ROOT / "k8s" / "overlays").glob("*/trainjob"))


def command(directory: Path) -> list[str]:
    """The arguments of `ocrmem` in the comment of a directory's kustomization."""
    text = (directory / "kustomization.yaml").read_text(encoding="utf-8")
    comment = " ".join(line.strip().removesuffix("\\") for line in re.findall(r"^#(.*)$", text, re.MULTILINE))
    return shlex.split(comment[comment.index("ocrmem train") :])[1:]


def printed(directory: Path) -> str:
    """The manifest that the command prints; it must run in the root of the repository."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(command(directory))
    if code:
        raise SystemExit(code)
    return output.getvalue()


if __name__ == "__main__":
    with contextlib.chdir(ROOT):
        for directory in DIRECTORIES:
            write_text(directory / "trainjob.yaml", printed(directory))
            print(directory / "trainjob.yaml")

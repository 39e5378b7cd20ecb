"""Another process that holds the lock of an output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.ranks import environment

CODE = """
import sys
from ocrmem.files import locked
with locked(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(output: Path, verb: str = "render") -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of ``output`` in a process of its own, which is killed when the block ends."""
    command = [sys.executable, "-c", CODE, str(output), verb]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()

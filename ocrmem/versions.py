"""The versions that a report names."""

from __future__ import annotations

import importlib.metadata
import platform
from contextlib import suppress

from ocrmem import __version__


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of ocrmem, of Python, and of those packages that are installed.

    ocrmem's own is the running code's, which need not be installed: a checkout on PYTHONPATH is enough.
    """
    found = {"ocrmem": __version__}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | {"python": platform.python_version()}

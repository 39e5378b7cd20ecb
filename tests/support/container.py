"""Images built and run without a daemon: buildah in a chroot, on a base that mmdebstrap makes of Debian's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("buildah", "mmdebstrap")
_BASE = "localhost/ocrmem-test-base"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def missing_tools() -> str:
    """The tools that are not installed, for the reason of a skip; nothing is built without root either."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    return ", ".join(missing + (["root"] if os.geteuid() else []))


def _run(*command: object, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout, check=False)


def _must(*command: object) -> str:
    done = _run(*command)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Image:
    """An image that was built.

    Attributes:
        name: in buildah's store.
        size: bytes of all layers.
    """

    name: str
    size: int

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `ocrmem` with these arguments as the image's user, with its environment and working directory."""
        return self._inside("ocrmem", *arguments)

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of sh as root."""
        return self._inside("sh", "-c", line, user="0:0")

    def _inside(self, *command: str, user: str = "10001:10001") -> subprocess.CompletedProcess[str]:
        container = _must("buildah", "from", self.name)
        try:
            return _run("buildah", "run", "--isolation=chroot", f"--user={user}", container, "--", *command)
        finally:
            _must("buildah", "rm", container)


class Buildah:
    """Builds the repository's Dockerfile.

    Args:
        directory: for the root file system of the base image.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def build(self, root: Path, extras: str) -> Image:
        base = self._base()
        name = "localhost/ocrmem-test"
        _must(
            "buildah", "build", "--isolation=chroot", f"--build-arg=PYTHON_IMAGE={base}",
            f"--build-arg=EXTRAS={extras}", f"--tag={name}", root,
        )  # fmt: skip
        [inspected] = json.loads(_must("buildah", "images", "--json", name))
        return Image(name, _bytes(inspected["size"]))

    def _base(self) -> str:
        """Debian with Python at the place where python:3.11-slim has it."""
        if _run("buildah", "inspect", "--type=image", _BASE).returncode == 0:
            return _BASE
        archive = self.directory / "base.tar"
        packages = "python3,python3-venv,python3-pip,ca-certificates"
        _must("mmdebstrap", "--variant=minbase", f"--include={packages}", "bookworm", archive)
        container = _must("buildah", "from", "scratch")
        _must("buildah", "add", container, archive, "/")
        if _CERTIFICATES.is_file():  # a proxy's, where there is one
            _must("buildah", "copy", container, _CERTIFICATES, _CERTIFICATES)
        setup = "rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -s /usr/bin/python3 /usr/local/bin/python"
        _must("buildah", "run", "--isolation=chroot", container, "--", "sh", "-c", setup)
        _must(
            "buildah", "config", f"--env=SSL_CERT_FILE={_CERTIFICATES}", f"--env=PIP_CERT={_CERTIFICATES}",
            "--env=UV_SYSTEM_CERTS=1", container,
        )  # fmt: skip
        _must("buildah", "commit", container, _BASE)
        _must("buildah", "rm", container)
        archive.unlink()
        return _BASE


def _bytes(text: str) -> int:
    number, unit = text.split()
    return int(float(number) * {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[unit.upper()])

"""Build the container image with the builder that this machine has: `make image`, `make image VARIANT=cpu`.

What follows the options is handed to the builder as it is:

    python scripts/build_image.py --variant cpu -- --build-arg PYTHON_IMAGE=registry.example.org/python:3.11
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILDERS = ("docker", "podman", "buildah")  # in order of preference
VARIANTS: dict[str, dict[str, str]] = {"training": {}, "cpu": {"TORCH_BACKEND": "cpu"}}


def version() -> str:
    """Return the project's version, without importing the project: a builder needs nothing installed."""
    text = (ROOT / "ocrmem" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.M)[0]


def tag_of(variant: str) -> str:
    """Return the tag that the manifests name; the CPU variant's ends with -cpu."""
    return f"registry.example.org/ocrmem:{version()}" + ("-cpu" if variant == "cpu" else "")


def build_command(builder: str, variant: str, tag: str, more: Sequence[str] = ()) -> list[str]:
    """Return the builder's whole command line for an image of the checkout."""
    given = {
        "VERSION": version(),
        "REVISION": _git("rev-parse", "HEAD") or "unknown",
        "CREATED": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **VARIANTS[variant],
    }
    arguments = [f"--build-arg={name}={value}" for name, value in given.items()]
    return [builder, "build", f"--tag={tag}", *arguments, *more, str(ROOT)]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, default="training", help="cpu: PyTorch without CUDA")
    parser.add_argument("--tag", help=f"default: {tag_of('training')}, with -cpu for that variant")
    parser.add_argument("more", nargs="*", help="after --: options of the builder")
    arguments = parser.parse_args()
    found = next(filter(shutil.which, BUILDERS), None)
    if found is None:
        print(f"No image builder is installed. Install one of {', '.join(BUILDERS)}.", file=sys.stderr)
        return 2
    command = build_command(found, arguments.variant, arguments.tag or tag_of(arguments.variant), arguments.more)
    print(shlex.join(command), file=sys.stderr)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

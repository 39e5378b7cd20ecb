"""`make image`: one command for whatever builder there is; and, where buildah and mmdebstrap are, a real image, run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.container import Buildah, missing_tools

ROOT = Path(__file__).resolve().parent.parent


def fake_builders(directory: Path, *names: str) -> dict[str, str]:
    """An environment whose PATH holds these builders, each of which prints its arguments, and nothing else but git."""
    directory.mkdir()
    for name in names:
        script = directory / name
        script.write_text(f"#!{sys.executable}\nimport sys, json\nprint(json.dumps(sys.argv))\n")
        script.chmod(0o755)
    (directory / "git").symlink_to(shutil.which("git") or "/usr/bin/git")
    return {**os.environ, "PATH": str(directory)}


def build(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "build_image.py", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        (("docker", "podman", "buildah"), "docker"),
        (("podman", "buildah"), "podman"),
        (("buildah",), "buildah"),
    ],
)
def test_the_builder_that_is_installed_builds(tmp_path: Path, installed: tuple[str, ...], chosen: str) -> None:
    done = build(fake_builders(tmp_path / "bin", *installed))
    assert done.returncode == 0, done.stderr
    program, *arguments = json.loads(done.stdout)
    assert Path(program).name == chosen
    assert arguments[0] == "build"
    assert arguments[-1] == str(ROOT)
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert f"--build-arg=REVISION={head.stdout.strip()}" in arguments
    assert "--tag=registry.example.org/ocrmem:0.1.0" in arguments


def test_the_cpu_variant_and_options_of_the_builder_are_handed_on(tmp_path: Path) -> None:
    done = build(fake_builders(tmp_path / "bin", "buildah"), "--variant", "cpu", "--", "--isolation=chroot")
    arguments = json.loads(done.stdout)
    assert {"--build-arg=TORCH_BACKEND=cpu", "--isolation=chroot"} <= set(arguments)
    assert "--tag=registry.example.org/ocrmem:0.1.0-cpu" in arguments


def test_no_builder_says_which_to_install(tmp_path: Path) -> None:
    done = build(fake_builders(tmp_path / "bin"))
    assert done.returncode == 2
    assert done.stderr == "No image builder is installed. Install one of docker, podman, buildah.\n"


@pytest.mark.slow
def test_the_image_is_built_and_its_verbs_run_as_its_user(tmp_path: Path) -> None:
    """With one extra only; docs/image.md says what has been run of whole images."""
    if missing := missing_tools():
        pytest.skip(f"an image is built here with {missing}, not installed")
    image = Buildah(tmp_path).build(ROOT, extras="dataset")
    assert image.size < 1_500_000_000
    assert image.run("--help").returncode == 0
    written = image.run("synth", "--output", "/tmp/data", "--style", "mixed", "--count", "2")
    assert written.returncode == 0, written.stderr
    # The settings and conversations that the image carries.
    validated = image.run("validate", "--set", "paths.reports=/tmp")
    assert validated.returncode == 0, validated.stderr
    leftovers = image.shell("find /opt /root -name uv -o -name pip -o -name '*.a' -o -path '*/site-packages/*/tests'")
    assert leftovers.stdout == ""

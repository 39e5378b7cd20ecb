"""The Dockerfile, as far as it can be proved without a container engine: its install lines run in a new environment."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl
from support.dockerfile import Dockerfile, ignored

import ocrmem
from ocrmem.config import PLACEHOLDER_IMAGE

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = Dockerfile(ROOT / "Dockerfile")
FINAL = DOCKERFILE.last_stage
ENV = DOCKERFILE.pairs("ENV", FINAL)
RULES = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN pip install torch\n")
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", bad], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert {"DL3006", "DL3013"} <= set(re.findall(r"DL\d+", done.stdout))


def test_every_copied_path_exists_and_is_in_the_build_context() -> None:
    sources = DOCKERFILE.copied_from_context()
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source.rstrip("/"), RULES), source
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "ocrmem").rglob("*.py")]
    assert not [path for path in modules if ignored(path, RULES)]


def test_stages_that_are_copied_from_exist() -> None:
    for one in [*DOCKERFILE.all("COPY"), *DOCKERFILE.all("RUN")]:
        for flag in one.flags:
            for name in re.findall(r"(?:--|,)from=([^,\s]+)", flag):
                assert DOCKERFILE.stage(name) < one.stage


@pytest.mark.parametrize(
    "path",
    [".git/config", ".env", "keys.env", "data/train.jsonl", "models/base/model.safetensors", "wandb/run/x",
     "k8s/x.yaml", "ocrmem/__pycache__/cli.pyc", "tests/test_image.py", ".venv/bin/python", "samples/chat/eval.jsonl"],
)  # fmt: skip
def test_what_is_no_part_of_the_image_stays_out_of_the_build_context(path: str) -> None:
    assert ignored(path, RULES)


def test_it_is_a_batch_image_with_a_fixed_user() -> None:
    assert [one.text for one in DOCKERFILE.all("USER", FINAL)] == ["10001:10001"]
    assert [one.text for one in DOCKERFILE.all("ENTRYPOINT", FINAL)] == ['["ocrmem"]']
    assert not DOCKERFILE.all("HEALTHCHECK")
    assert not DOCKERFILE.all("ADD")
    last = [one.name for one in DOCKERFILE.instructions[-4:]]
    assert last.index("USER") > last.index("WORKDIR"), "the working directory is the image's, not the user's to replace"
    assert not [one for one in DOCKERFILE.all("COPY", FINAL) if "chown" in one.text], "code is not writable by its user"


def test_its_base_is_pinned_and_its_version_is_the_projects() -> None:
    arguments = DOCKERFILE.pairs("ARG", -1) | DOCKERFILE.pairs("ARG", FINAL)
    [base] = {one.text.split()[0] for one in DOCKERFILE.all("FROM") if "${" in one.text}
    assert base == "${PYTHON_IMAGE}"
    [line] = [one.text for one in DOCKERFILE.all("ARG", -1) if one.text.startswith("PYTHON_IMAGE=")]
    version = re.fullmatch(r"PYTHON_IMAGE=python:(3\.\d+)\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", line)
    assert version
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["classifiers"]
    assert arguments["VERSION"] == ocrmem.__version__ == PLACEHOLDER_IMAGE.rpartition(":")[2]


def test_labels_are_those_of_oci_and_take_build_arguments() -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value
              for name, value in DOCKERFILE.pairs("LABEL", FINAL).items()}  # fmt: skip
    assert labels["licenses"] == PROJECT["license"]
    arguments = DOCKERFILE.pairs("ARG", FINAL)
    for label in ("version", "revision", "created", "source"):
        assert labels[label] == f"${{{label.upper()}}}"
        assert label.upper() in arguments


def test_everything_is_written_to_tmp_or_below_workspace() -> None:
    places = DOCKERFILE.writable_places()
    expected = {"HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "TRITON_CACHE_DIR",
                "WANDB_DIR", "WANDB_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "DVC_SITE_CACHE_DIR"}  # fmt: skip
    assert expected <= set(places)
    for name, place in places.items():
        assert Path(place).is_relative_to("/tmp") or Path(place).is_relative_to("/workspace/models"), name


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Dockerfile's own lines install, with the extra `pipelines` instead of `all`, which is 6 GB."""
    directory = tmp_path_factory.mktemp("image")
    return _Build(directory, extras="pipelines").run()


# The same files in a fifth of the time.
_QUICKER = {"UV_COMPILE_BYTECODE": "0", "UV_LINK_MODE": "hardlink"}


class _Build:
    """Runs COPY and RUN of a Dockerfile in a directory that stands for the root of the image."""

    def __init__(self, directory: Path, extras: str) -> None:
        self.opt = directory / "opt"
        self.context = directory / "build"
        self.context.mkdir()
        base = directory / "base"
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--seed", "--python", sys.executable, base], check=True)
        self.places = {
            "/usr/local/bin/python": str(base / "bin" / "python"),
            "/opt/ocrmem": str(self.opt),
            "/wheels": str(directory / "wheels"),
            "/staged": str(directory / "staged"),
        }
        outside = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        self.environment = outside | {"PATH": f"{base}/bin:/usr/bin:/bin", "EXTRAS": extras}

    def run(self) -> Path:
        for one in DOCKERFILE.instructions:
            if one.name == "ENV" and one.stage != FINAL:
                self.environment |= DOCKERFILE.pairs("ENV", one.stage) | _QUICKER
            if one.name == "COPY" and one.stage != FINAL:
                self.copy(one.body)
            if one.name == "RUN" and one.stage != FINAL:
                self.shell(one.body)
            if one.text == "--from=package /staged /opt/ocrmem":
                self.shell("cp -r /staged/. /opt/ocrmem")
        return self.opt

    def copy(self, body: str) -> None:
        *sources, target = body.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, self.context / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, self.context / target)

    def shell(self, line: str) -> str:
        for there, here in self.places.items():
            line = line.replace(there, here)
        done = subprocess.run(
            ["sh", "-ec", line], cwd=self.context, env=self.environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr


def in_image(installed: Path, command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run with the image's environment and nothing of this process's, /tmp being the directory ``cwd``."""
    environment = {
        name: value.replace("/tmp", str(cwd)).replace("/opt/ocrmem", str(installed)) for name, value in ENV.items()
    }
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_the_install_lines_make_an_ocrmem_that_runs_without_the_repository(installed: Path, tmp_path: Path) -> None:
    helped = in_image(installed, ["ocrmem", "--help"], tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert "validate" in helped.stdout
    code = "import ocrmem, sys; print(ocrmem.__file__); print([p for p in sys.path if p.startswith(sys.argv[1])])"
    where, inside = in_image(installed, ["python3", "-c", code, str(ROOT)], tmp_path).stdout.splitlines()
    assert Path(where).is_relative_to(installed)
    assert inside == "[]"
    # Files that are no modules came along: phrases and glyphs are read here.
    written = in_image(installed, ["ocrmem", "synth", "--output", "data", "--style", "mixed", "--count", "2"], tmp_path)
    assert written.returncode == 0, written.stderr
    code = "from ocrmem.rendering.atlas_choice import load_atlas; load_atlas('unifont')"
    assert in_image(installed, ["python3", "-c", code], tmp_path).stderr == ""


@pytest.mark.slow
def test_nothing_can_be_installed_in_a_running_pod(installed: Path, tmp_path: Path) -> None:
    assert not list((installed / "bin").glob("pip*"))
    assert not list((installed / "bin").glob("uv*"))
    assert ENV["PIP_NO_INDEX"] == "1"


@pytest.mark.slow
def test_a_component_of_kubeflow_pipelines_runs_as_its_launcher_starts_it(installed: Path, tmp_path: Path) -> None:
    """It replaces the entry point by sh, which writes the function to a file and calls kfp's executor."""

    @dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
    def version() -> str:
        from ocrmem import __version__

        return __version__

    compiler.Compiler().compile(version, str(tmp_path / "version.yaml"))
    [package] = yaml.safe_load_all((tmp_path / "version.yaml").read_text(encoding="utf-8"))
    [executor] = package["deploymentSpec"]["executors"].values()
    container = executor["container"]
    assert "pip" not in " ".join(container["command"])
    written = tmp_path / "written.json"
    given = {
        "inputs": {},
        "outputs": {"parameters": {"Output": {"outputFile": str(tmp_path / "output")}}, "outputFile": str(written)},
    }
    arguments = [argument.replace("{{$}}", json.dumps(given)) for argument in container["args"]]
    done = in_image(installed, [*container["command"], *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(written.read_text()) == {"parameterValues": {"Output": ocrmem.__version__}}


@pytest.mark.slow
def test_everything_that_the_image_installs_is_resolved_by_the_constraints(installed: Path) -> None:
    [line] = [one.body for one in DOCKERFILE.all("RUN") if "--requirement pyproject.toml" in one.body]
    build = object.__new__(_Build)
    build.context = installed.parent / "build"
    build.places = {"/opt/ocrmem": str(installed)}
    extras = DOCKERFILE.pairs("ARG", DOCKERFILE.stage("dependencies"))["EXTRAS"]
    path = f"{installed.parent / 'base' / 'bin'}:/usr/bin:/bin"
    build.environment = dict(os.environ) | {"EXTRAS": extras, "PATH": path}
    chosen = build.shell(line.replace("uv pip install", "uv pip install --dry-run"))
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for package in ("torch", "transformers", "deepspeed", "kubeflow", "dvc-s3", "mlflow-skinny", "great-expectations"):
        [pinned] = re.findall(rf"^{package}==(\S+)", constraints, re.MULTILINE)
        assert f"+ {package}=={pinned}" in chosen, package

"""What ocrmem/ imports, what pyproject.toml declares and what a person is told to install are the same."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from ocrmem.extras import EXTRA_OF

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# None is for what ocrmem/ does: the sum of the others, the tests and benchmarks, the site of docs/.
APART = {"all", "dev", "docs"}
EXTRAS = {name: wanted for name, wanted in PROJECT["optional-dependencies"].items() if name not in APART}

# Modules that are not named like the distribution of pyproject.toml that brings them, itself or by what it requires.
BROUGHT_BY = {
    "PIL": "pillow",
    "aiohttp": "kubeflow[hub]",
    "botocore": "dvc[s3]",
    "deepseek_ocr_encoder": "deepseek-ocr-encoder",
    "dvc_data": "dvc",
    "dvc_s3": "dvc[s3]",
    "fsspec": "dvc",
    "great_expectations": "great-expectations",
    "huggingface_hub": "transformers",
    "kfp_server_api": "kfp",
    "kubeflow_trainer_api": "kubeflow",
    "markupsafe": "jinja2",
    "mlflow": "mlflow-skinny",
    "model_registry": "kubeflow[hub]",
    "mr_openapi": "kubeflow[hub]",
    "pydantic_core": "pydantic",
    "requests": "mlflow-skinny",
    "typing_extensions": "pydantic",
    "yaml": "pyyaml",
}
# Distributions that are declared although nothing in ocrmem/ imports them.
NOT_IMPORTED = {
    "accelerate": "transformers' Trainer imports it",
    "kfp-kubernetes": "kfp reads the pipelines' Kubernetes settings with it",
    "sqlparse": "MLflow's SQLite registry",
}
# The extras of each part of the package, which it may import besides the base dependencies; the longest path counts.
FEATURES = {
    "": set(),
    "cluster": {"kubernetes"},
    "conversion": {"dataset"},
    "dataset": {"dataset", "quality"},
    "encoder": {"model", "encoder"},
    "evaluation": {"model"},
    "families": {"dataset"},
    "generation": {"model", "fonts"},
    "gradflow": {"model"},
    "model": {"model", "lora"},
    "objectives": {"model"},
    "planning": {"model", "dataset"},
    "readiness": {"model"},
    "registry": {"registry", "model-registry"},
    "rendering": {"fonts"},
    "smoke_test.py": {"model"},
    "storage.py": {"dvc-s3"},
    "synthetic": {"dataset"},
    "tokens.py": {"dataset"},
    "tracking.py": {"tracking"},
    "training": {"model", "deepspeed"},
    "validation": {"model"},
    "versioning": {"dvc", "dvc-s3"},
    "workflow": {"pipelines"},
}


def name_of(requirement: str) -> str:
    """``dvc[s3]>=3.60`` -> ``dvc[s3]``."""
    return re.match(r"[\w.-]+(\[[\w,-]+\])?", requirement)[0].lower().replace("_", "-")


def names_of(requirements: Iterable[str]) -> set[str]:
    """What the requirements bring: ``dvc[s3]`` also brings ``dvc``."""
    names = {name_of(requirement) for requirement in requirements}
    return names | {name.partition("[")[0] for name in names}


BASE = names_of(PROJECT["dependencies"])
DECLARED = {extra: names_of(wanted) for extra, wanted in EXTRAS.items()}


@cache
def imports() -> dict[str, set[str]]:
    """The third-party modules that ocrmem/ imports, at the top or in a function, and the files that do."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "ocrmem").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            for module in {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"ocrmem"}:
                found.setdefault(module, set()).add(path.relative_to(ROOT / "ocrmem").as_posix())
    return found


def distribution_of(module: str) -> str:
    return BROUGHT_BY.get(module, module.lower())


def feature_of(file: str) -> set[str]:
    fitting = [prefix for prefix in FEATURES if not prefix or file == prefix or file.startswith(f"{prefix}/")]
    return FEATURES[max(fitting, key=len)]


@pytest.mark.parametrize("module", sorted(imports()))
def test_each_import_is_declared_by_an_extra_of_its_feature(module: str) -> None:
    distribution = distribution_of(module)
    if distribution in BASE:
        return
    for file in imports()[module]:
        allowed = {extra for extra in feature_of(file) if distribution in DECLARED[extra]}
        assert allowed, f"{file} imports {module} ({distribution}): none of its extras {feature_of(file)} declares that"


@pytest.mark.parametrize("extra", ["", *EXTRAS], ids=lambda extra: extra or "base")
def test_each_declared_distribution_is_imported(extra: str) -> None:
    used = {distribution_of(module) for module in imports()} | NOT_IMPORTED.keys()
    unused = (DECLARED[extra] if extra else BASE) - used
    assert not unused, f"nothing in ocrmem/ imports {unused}"


def test_the_exceptions_are_needed() -> None:
    declared = BASE.union(*DECLARED.values())
    imported = {distribution_of(module) for module in imports()}
    assert NOT_IMPORTED.keys() <= declared - imported
    assert BROUGHT_BY.keys() <= imports().keys()
    assert {extra for extras in FEATURES.values() for extra in extras} <= EXTRAS.keys()
    assert [p for p in FEATURES if not (ROOT / "ocrmem" / p).exists()] == []


def requirements_of(distribution: str) -> set[str]:
    """What an installed distribution brings, itself included, as its own metadata and that of what it brings say."""
    waiting, seen = [distribution], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        name, _, extras = current.rstrip("]").partition("[")
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in required:
            marker = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
            if marker is None or marker[1] in extras.split(","):
                waiting.append(name_of(requirement))
    return {name.partition("[")[0] for name in seen}


@pytest.mark.parametrize("module", sorted(BROUGHT_BY))
def test_what_is_not_declared_itself_comes_with_what_is(module: str) -> None:
    providers = {name_of(name) for name in importlib.metadata.packages_distributions()[module]}
    assert providers & requirements_of(BROUGHT_BY[module]), f"{BROUGHT_BY[module]} does not bring {providers}"


def test_the_remedy_for_a_missing_module_names_an_extra_that_brings_it() -> None:
    optional = {module for module in imports() if distribution_of(module) not in BASE}
    assert EXTRA_OF.keys() == optional
    wrong = {m: extra for m, extra in EXTRA_OF.items() if distribution_of(m) not in DECLARED[extra]}
    assert wrong == {}


def test_all_is_the_sum_of_the_other_extras() -> None:
    [everything] = PROJECT["optional-dependencies"]["all"]
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == EXTRAS.keys()


def test_make_demo_installs_extras_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.search(r"^DEMO_EXTRAS := (.*)$", makefile, re.M)[1].split(",")) <= EXTRAS.keys()

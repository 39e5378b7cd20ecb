"""The shape of the package: imports run one way, heavy libraries stay where they belong, files stay small."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ocrmem"

# A module imports from its own layer and from the layers before it.
LAYERS = [
    {
        "arguments",
        "boxed",
        "errors",
        "extras",
        "families",
        "facts",
        "files",
        "html",
        "json_files",
        "package",
        "environment",
        "console",
        "model_places",
        "places",
        "signals",
        "versions",
        "worker_pool",
        "secrets",
        "retry",
        "storage",
        "config",
        "health",
        "registries",
        "verdicts",
    },
    {"conversations"},
    {"conversion"},
    {"synthetic"},
    {"tokens"},
    {"rendering"},
    {"dataset"},
    {"versioning"},
    {"validation"},
    {"encoder"},
    {"gradflow"},
    {"model"},
    {"objectives"},
    {"smoke_test"},
    {"tracking"},
    {"evaluation"},
    {"planning"},
    {"training"},
    {"adapter", "registry", "generation"},
    {"cluster"},
    {"readiness"},
    {"steps"},
    {"workflow"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

ONLY_IN = {
    "great_expectations": {"dataset/quality.py"},
    "mlflow": {"registry/mlflow_backend.py"},
    "model_registry": {"registry/kubeflow_backend.py"},
    "boto3": {"storage.py"},
    "dvc": {"versioning/dvc_remote.py"},
    "dvc_data": {"versioning/dvc_remote.py"},
    "deepspeed": {"training/deepspeed.py", "training/optimizer_state.py", "training/zero3.py"},
    "peft": {"model/lora.py"},
    "wandb": {"tracking.py"},
    "kfp": {"workflow/compiling.py", "workflow/local.py", "workflow/submitting.py"},
    "kubernetes": {"cluster/sdk.py"},
    "kubeflow_trainer_api": {"cluster/sdk.py"},
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer() -> None:
    unplaced = {layer_of(path) for path in SOURCES} - set(RANK) - {"__init__", "__main__"}
    assert not unplaced, f"give them a layer in LAYERS: {sorted(unplaced)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    if layer_of(path) in {"__init__", "__main__"}:
        return
    own = RANK[layer_of(path)]
    upwards = [
        module
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8")))
        if module.startswith("ocrmem.") and RANK.get(module.split(".")[1], -1) > own
    ]
    assert not upwards, f"{path.name} imports from a later layer: {upwards}"


def runtime_imports(source: str, modules: set[str]) -> set[str]:
    """The modules of the package that a module imports when it runs, inside functions too, but not for types alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` imports the module; what the package itself gives comes from the package.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & modules
            if names - modules:
                found.add(node.module)
    return found & modules


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def circles(graph: dict[str, set[str]]) -> list[str]:
    """A description of each circle of a graph."""
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_of(path) for path in SOURCES}
    graph = {module_of(path): runtime_imports(path.read_text(encoding="utf-8"), modules) for path in SOURCES}
    assert not circles(graph)


def test_a_circle_hidden_in_a_function_is_found() -> None:
    source = "def f():\n    from ocrmem.b import g\n\nif TYPE_CHECKING:\n    from ocrmem.c import T\n"
    found = runtime_imports(source, {"ocrmem.a", "ocrmem.b", "ocrmem.c"})
    assert found == {"ocrmem.b"}
    assert circles({"ocrmem.a": found, "ocrmem.b": {"ocrmem.a"}}) == ["ocrmem.a -> ocrmem.b -> ocrmem.a"]


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_is_known_to_one_module(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in SOURCES
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8")))
        if module.split(".")[0] == library
    }
    assert users == ONLY_IN[library]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_grows_past_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_nothing_is_unpickled_and_no_remote_code_is_trusted() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            assert "trust_remote_code" not in keywords, path
            if ast.unparse(node.func) == "torch.load":
                assert ast.unparse(keywords["weights_only"]) == "True", path
            assert ast.unparse(node.func) not in {"pickle.load", "pickle.loads"}, path


HEAVY = [
    "torch",
    "transformers",
    "great_expectations",
    "mlflow",
    "wandb",
    "pyarrow",
    "pandas",
    "datasets",
    "matplotlib",
    "kubernetes",
    "kubeflow",
    "kfp",
]


@pytest.mark.parametrize(
    "statement",
    [
        "import ocrmem",
        "import ocrmem.cli; ocrmem.cli.build_parser()",
        "import ocrmem.config",
        "import ocrmem.rendering",
    ],
)
def test_light_imports_stay_light(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def defined_names(path: Path) -> set[str]:
    """The names that a module defines at its top."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


ARCHITECTURE = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
PLACES = re.findall(r"^\| .+ \| `(ocrmem/\S+\.py)` \| (.+) \|$", ARCHITECTURE, re.MULTILINE)


def test_architecture_says_where_what_a_reader_looks_for_is() -> None:
    assert len(PLACES) >= 15


@pytest.mark.parametrize(("path", "names"), PLACES, ids=[path for path, _ in PLACES])
def test_what_architecture_says_is_in_a_file_is_there(path: str, names: str) -> None:
    assert set(re.findall(r"`(\w+)`", names)) <= defined_names(PACKAGE.parent / path)


@pytest.mark.parametrize("page", sorted((PACKAGE.parent / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_modules_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`(ocrmem/[\w/]+\.\w+)`", page.read_text(encoding="utf-8"))
    # extending.md adds a verb `count`, and stands NAME for what a reader adds.
    missing = [path for path in named if not (PACKAGE.parent / path).is_file() and "NAME" not in path]
    assert [path for path in missing if page.name != "extending.md" or Path(path).stem != "count"] == []

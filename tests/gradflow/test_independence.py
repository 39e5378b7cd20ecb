"""gradflow could be a package of its own: it needs torch and jinja2, and nothing else that is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ocrmem.gradflow

FOLDER = Path(ocrmem.gradflow.__file__).parent

SCRIPT = """
import sys
from importlib.machinery import PathFinder


class OnlyTheDoctor(PathFinder):
    '''Finds neither transformers nor any module of ocrmem but gradflow's.'''

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top, _, rest = name.partition(".")
        if top == "transformers" or (top == "ocrmem" and rest and rest.split(".")[0] != "gradflow"):
            return None
        return super().find_spec(name, path, target)


sys.meta_path[:] = [OnlyTheDoctor if finder is PathFinder else finder for finder in sys.meta_path]

import torch
from torch import nn

from ocrmem import gradflow


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.Linear(2, 1)

    def forward(self, x):
        return {"loss": self.head(self.body(x)).sum()}


model = Model()
report = gradflow.check(model, {"x": torch.randn(3, 2)}, trainable="head")
assert report.ok and "all checks passed" in report.verdict(), report.verdict()
assert report.as_dict()["ok"] and report.html() and report.tree()
model.head.requires_grad_(False)
try:
    gradflow.assert_flows(model, {"x": torch.randn(3, 2)}, trainable="head")
except gradflow.GradientFlowError as error:
    assert [finding.code for finding in error.findings] == ["GF002"], error
else:
    raise SystemExit("a frozen head was not found")
try:
    gradflow.GradientFlowCallback
except ModuleNotFoundError as error:
    assert error.name == "transformers", error
loaded = {name.partition(".")[0] for name in sys.modules if name != "ocrmem" and not name.startswith("ocrmem.gradflow")}
assert "ocrmem" not in loaded and "transformers" not in loaded
"""


def test_it_checks_a_plain_module_where_the_rest_of_ocrmem_and_transformers_are_missing() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_its_modules_import_torch_and_jinja2_alone() -> None:
    foreign = {}
    for path in FOLDER.glob("*.py"):
        modules = {
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        allowed = {"torch", "jinja2"} | ({"transformers"} if path.name == "callback.py" else set())
        foreign[path.name] = {
            name
            for name in modules
            if not name.startswith("ocrmem.gradflow")
            and name.partition(".")[0] not in allowed | sys.stdlib_module_names
        }
    assert not any(foreign.values()), foreign

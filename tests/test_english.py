"""`make english`: the steps of dvc.yaml, with the conversations made first, in a workspace that DVC accepts."""

from __future__ import annotations

import importlib.machinery
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrmem.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def english() -> Any:
    path = ROOT / "scripts" / "english.py"
    loader = importlib.machinery.SourceFileLoader("english", str(path))
    module = types.ModuleType(loader.name)
    module.__file__ = str(path)
    loader.exec_module(module)
    return module


def test_the_chain_is_that_of_dvc_yaml_with_its_data_made_first(english: Any) -> None:
    stages = english.stages("data")
    tiny = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages)[-len(tiny) :] == list(tiny)
    changed = {name for name, stage in tiny.items() if stage["cmd"] != stages[name]["cmd"]}
    assert changed == {"train"}
    assert stages["train"]["cmd"] == "ocrmem train --resume"
    made = [stages[name]["cmd"].split()[:2] for name in list(stages)[: -len(tiny)]]
    assert made == [["ocrmem", "synth"], *[["ocrmem", "prose"]] * english.PROSE_PARTS]


def test_the_workspace_has_every_setting_and_dvc_runs_its_stages_in_order(
    english: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(english, "missing_to_compile", lambda on_gpu: "no compiler")
    bin_of_this = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{bin_of_this}{os.pathsep}{os.environ['PATH']}")
    english.write_workspace(ROOT / "params.yaml", tmp_path)
    assert RunConfig.load(tmp_path / "params.yaml") == RunConfig.load(ROOT / "params.yaml")
    graph = subprocess.run(["dvc", "dag", "--dot"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    after = set(re.findall(r'"([\w-]+)" -> "([\w-]+)"', graph))
    assert {("synth", "render"), ("base", "prose-0"), ("prose-0", "render"), ("evaluate", "register")} <= after
    english.write_workspace(ROOT / "params.yaml", tmp_path)  # again, as after an interruption


@pytest.mark.parametrize(
    ("gpu", "missing", "compiled"), [(False, "", True), (False, "no compiler", False), (True, "", False)]
)
def test_a_gpu_gets_larger_batches_of_as_many_samples_and_a_cpu_compiled_layers(
    gpu: bool, missing: str, compiled: bool, english: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(english.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(english, "missing_to_compile", lambda on_gpu: missing)
    english.write_workspace(ROOT / "configs" / "english.yaml", tmp_path)
    written, preset = (RunConfig.load(path).train for path in (tmp_path / "params.yaml", ROOT / "configs/english.yaml"))
    assert written.compile_layers == compiled
    assert written.packing == gpu
    assert (written.per_device_batch_size > preset.per_device_batch_size) == gpu
    sizes = [train.max_steps * train.per_device_batch_size for train in (written, preset)]
    assert sizes[0] == sizes[1]

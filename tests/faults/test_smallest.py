"""The smallest runs: one sample of one page, one step or two, an answer of one token. The 1-2 batch test is the first
thing that a newcomer tries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.chat import write_jsonl
from support.finished import OUTPUTS, settings
from support.models import write_random_base
from support.verbs import Verbs

pytestmark = pytest.mark.slow
pytest.importorskip("mlflow")
pytest.importorskip("dvc")


def one_question(name: str) -> dict[str, Any]:
    """A conversation whose only learnt answer is a word of one token."""
    said = [("user", f"{name} tea"), ("assistant", "ok"), ("user", f"ask {name}"), ("assistant", "tea")]
    messages = [{"role": role, "content": content} for role, content in said]
    messages[1]["weight"] = 0  # type: ignore[assignment]
    return {"id": name, "messages": messages}


def small(root: Path, steps: int) -> Path:
    values = settings()
    values["model"] |= {"context_threshold": 0}
    values["train"] |= {"max_steps": steps, "logging_steps": 10, "save_steps": 10, "per_device_batch_size": 1}
    values["smoke"] = {"samples": 1}
    values["evaluate"] |= {"batch_size": 1, "max_new_tokens": 1}
    (root / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
    write_jsonl(root / "data" / "train.jsonl", [one_question("ana")])
    write_jsonl(root / "data" / "eval.jsonl", [one_question("kim"), one_question("ned")])
    write_random_base(root / "models")
    (root / "remote").mkdir()
    return root


@pytest.mark.parametrize("steps", [1, 2])
def test_every_verb_does_its_smallest_run(steps: int, verbs: Verbs, tmp_path: Path) -> None:
    root = small(tmp_path, steps)
    for verb in OUTPUTS:
        verbs.good(root, verb)
    samples = json.loads((root / "dataset" / "manifest.json").read_bytes())["counts"]["samples"]
    assert samples["train"] == 1
    report = json.loads((root / "train.json").read_bytes())
    assert report["steps"] == steps
    curve = (root / "plots" / "train.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in curve[1:]] == [str(step) for step in range(1, steps + 1)]
    assert report["loss"] == {"first": float(curve[1].split(",")[1]), "last": float(curve[-1].split(",")[1])}
    assert json.loads((root / "evaluation.json").read_bytes())["samples"]["evaluated"] == 2

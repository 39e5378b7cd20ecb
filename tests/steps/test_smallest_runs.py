"""Every verb on the least that it can be given: a conversation, a page, a sample, a step, a token of the answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.models import small_settings, write_conversations, write_random_base

from ocrmem.steps import COMMANDS

LEAST: dict[str, dict[str, Any]] = {
    "model": {"features": "sum"},
    "render": {"max_pages": 1},
    "smoke": {"samples": 1},
    "train": {"max_steps": 1, "per_device_batch_size": 1, "logging_steps": 10, "save_steps": 10},
    "evaluate": {"batch_size": 1, "max_new_tokens": 1, "examples": 1, "max_samples": 2},
    # Recall of such a model is 0 whatever it is shown, which this gate accepts.
    "register": {
        "gate": {"min_recall": 0.0, "max_shuffled_recall": 0.0, "max_no_memory_recall": 0.0, "min_loss_gain": -1e9}
    },
}
# In the order in which they run: what stands behind the verb, and what its closing lines must show.
RUNS = {
    "synth": (["--output", "{root}/synth", "--style", "en", "--count", "1", "--eval-count", "1"], "1 "),
    "convert": (["{root}/shared.json", "--output", "{root}/converted"], "1 "),
    "import-adapter": (["{root}/old", "--output", "{root}/imported"], "imported"),
    "validate": ([], "1 "),
    "render": ([], "train samples"),
    "check": ([], "expectations hold"),
    "version": ([], "dataset"),
    "encode": ([], "pages encoded"),
    "smoke": ([], "proj"),
    "preflight": ([], ""),
    "train": ([], "loss: "),
    "evaluate": ([], "recall"),
    "register": ([], "ocrmem-adapter"),
    "generate": (["--conversation", "{root}/question.json"], ""),
    "ask": (["{root}/data/eval.jsonl", "--question", "who", "--config", "{root}/params.yaml"], ""),
}
# What ocrmem itself says on stderr: bars, and notes.
OURS = re.compile(r"^$|.* ━+ |Warning: |Timing the steps|Making the registry database ")
# One process, whose streams are files while a verb runs, so that what libraries log or warn of is there too.
CHILD = """
import json, os, sys
from ocrmem.cli import main
for verb, words in json.load(sys.stdin).items():
    for number, name in ((1, "out"), (2, "err")):
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(os.open(f"{verb}.{name}", os.O_WRONLY | os.O_CREAT), number)
    with open(f"{verb}.code", "w") as file:
        file.write(str(main([verb, *words])))
"""
# Set for the tests' own process, or by a person who wants quiet.
QUIETING = re.compile("TRANSFORMERS|HF_HUB_DISABLE|TOKENIZERS|MLFLOW|GX_|WANDB|PYTHONWARNINGS")
# tests/pipelines, tests/model/test_tiny_base.py, tests/generation
ELSEWHERE = {"pipeline", "base", "chat", "prose"}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """How each verb ended, one after the other on one workspace."""
    import torch

    root = tmp_path_factory.mktemp("least")
    values = small_settings(root, **LEAST)
    values["version"] = {"remote": str(root / "remote")}
    (root / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
    # Memory is shuffled between two conversations.
    write_conversations(root / "data", train=1, held_out=2)
    first = (root / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()[0]
    (root / "question.json").write_text(first, encoding="utf-8")
    write_random_base(root / "models")
    (root / "remote").mkdir()
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]
    (root / "shared.json").write_text(json.dumps([{"conversations": turns}]), encoding="utf-8")
    (root / "old").mkdir()
    layers = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.GELU(), torch.nn.Linear(1, 1))
    torch.save(layers.state_dict(), root / "old" / "projection_layer.pt")
    (root / "old" / "config.json").write_text("{}", encoding="utf-8")
    runs = {
        verb: [
            *(word.format(root=root) for word in arguments),
            *(["--config", str(root / "params.yaml")] if COMMANDS[verb].takes_config else []),
        ]
        for verb, (arguments, _) in RUNS.items()
    }
    environment = {name: value for name, value in os.environ.items() if not QUIETING.match(name)}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", CHILD], input=json.dumps(runs), cwd=root, env=environment, text=True)
    assert done.returncode == 0, sorted(path.name for path in root.glob("*.code"))

    def read(name: str) -> str:
        return (root / name).read_text(encoding="utf-8")

    return {verb: Ended(int(read(f"{verb}.code")), read(f"{verb}.out"), read(f"{verb}.err")) for verb in RUNS}


def test_no_verb_is_left_out() -> None:
    assert RUNS.keys() | ELSEWHERE == COMMANDS.keys()


@pytest.mark.parametrize("verb", RUNS)
def test_the_least_that_a_verb_can_do_ends_well_and_shows_it(verb: str, ended: dict[str, Ended]) -> None:
    code, out, err = ended[verb]
    assert code == 0, out + err
    assert RUNS[verb][1] in out
    for word in ("nan", "inf", "None", "Traceback"):
        assert word not in out.split(), out


@pytest.mark.parametrize("verb", RUNS)
def test_no_line_of_another_library_is_shown(verb: str, ended: dict[str, Ended]) -> None:
    assert [line for line in ended[verb].err.splitlines() if not OURS.match(line)] == []
    assert " 0/0 " not in ended[verb].err

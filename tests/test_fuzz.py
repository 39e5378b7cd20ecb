"""Broken inputs by the thousand, made from seeds with their structure in mind, through every verb in this process.

Whatever an input is, a verb ends within seconds with one of its exit codes and without a traceback; and what ocrmem
wrote itself is never used when a bit of it has changed.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.evaluated import workspace_with_adapter

from ocrmem.adapter import package_adapter
from ocrmem.cli import main
from ocrmem.config import RunConfig
from ocrmem.files import write_json
from ocrmem.json_files import with_sha256
from ocrmem.package import adapter_sha256

INPUTS = 2_000 if "ALL_CASES" in os.environ else 600
PINNED = 100
SECONDS = 10  # of computing, for one input
PATIENCE = 90  # seconds by the clock: other processes may have the machine
ENDS = {0, 1, 2, 75}
PLAN = ("train", "--plan", "--gpu", "l4")  # of a GPU in the table: the CPU would be measured, for half a second

ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 0.5, 1e308, float("nan"), 10**30, int("9" * 4000)),
    *("", " ", "text", "\x00", "\ud800", "é" * 50, "x" * 5000, "../../etc/passwd", "9" * 5000, "<|im_end|>"),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}),
]
ODD_BYTES = [
    *(b"", b"\x00", b"\xff\xfe", b"{", b"[" * 3000, b"null", b"[]", b"1", b'"text"', b"\n" * 20, b"PAR1"),
    b"\xef\xbb\xbf",
]
MESSAGES = [
    {"role": "system", "content": "sys"},
    {"role": "user", "content": "ask ana"},
    {"role": "assistant", "content": "ana tea"},
    {"role": "tool", "content": "ok", "tool_call_id": "1"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    {"from": "human", "value": "ask ana"},
    {"from": "gpt", "value": "ana tea"},
    {"role": "user", "content": [{"type": "text", "text": "ask"}, {"type": "image_url", "image_url": {"url": "x"}}]},
]
SETTINGS = [
    *("data.recent_turns", "data.eval_fraction", "model.context_threshold", "model.max_seq_length", "model.precision"),
    *("render.page_size", "render.line_height", "render.labels", "render", "train.learning_rate", "train.max_steps"),
    *("register.uri", "register.gate", "version.remote", "paths.dataset", "paths", "kubernetes", "tracking.wandb"),
    *("nothing.at", ""),
]
YAML_VALUES = [
    *("!!timestamp x", "!!binary '*'", "!!bool 3", "!!python/object:os.system x", "!!set {a}", "&a [*a]", "2024-99-99"),
    *("0x" + "f" * 5000, "1e400", ".nan", "2**64", "1:2:3", "{", "[", "'", "{a: 1, a: 2}", "- ", "\t", "~", "yes"),
    *("'é'", "? a", "|\n x", "\x07"),
]

# Without these a verb does something else: smoke encodes pages, register takes an imported adapter, a plan has bounds.
MAY_BE_ABSENT = {("smoke", "manifest.json"), ("register", "train.json"), ("plan", "manifest.json")}


@dataclass
class Workspace:
    """A small finished workspace; `places` are the files that ocrmem wrote, with the verbs that read each."""

    root: Path
    config: RunConfig

    def places(self) -> list[tuple[Path, tuple[str, ...]]]:
        readers = {
            "dataset/manifest.json": ("check", "encode", "smoke", "train", "evaluate", "version", "register", "plan"),
            "dataset/pages/*": ("encode", "smoke", "train", "evaluate", "version", "plan"),
            "dataset/samples/*": ("encode", "smoke", "train", "evaluate", "version", "plan"),
            "features/manifest.json": ("smoke", "train", "evaluate"),
            "features/rows-*": ("smoke", "train", "evaluate"),
            "features/statistics-*": ("smoke", "train", "evaluate"),
            "reports/evaluation.json": ("register",),
            "reports/train.json": ("register",),
            "smoke/report.json": ("register",),
            "package/*": ("generate",),
        }
        return [(path, verbs) for name, verbs in readers.items() for path in sorted(self.root.glob(name))]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("fuzzed")
    remote = {"remote": str(root / "remote")}
    config = workspace_with_adapter(root, version=remote, register={"uri": f"sqlite:///{root / 'registry' / 'm.db'}"})
    digest = adapter_sha256(root / "adapter")
    figures = {"loss": 1.0, "recall": 0.5}
    evaluation: dict[str, Any] = dict.fromkeys(("memory", "no_memory", "shuffled"), figures)
    evaluation |= {"adapter_sha256": digest, "samples": {"evaluated": 4}, "compression_ratio": 1.5}
    write_json(root / "reports" / "evaluation.json", with_sha256(evaluation))
    write_json(root / "reports" / "train.json", with_sha256({"adapter_sha256": digest}))
    package_adapter(config, root / "package")
    (root / "question.json").write_text(json.dumps({"messages": [{"role": "user", "content": "ask ana"}]}))
    # As a person writes it: the workspace has it as JSON.
    settings = json.loads((root / "params.yaml").read_text(encoding="utf-8"))
    (root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Workspace(root, config)


@dataclass
class Outcome:
    """How a verb ended, and what it said."""

    code: int
    said: str


class Hang(BaseException):
    """The verb took too long. Not an Exception, so that nothing on the way takes it for a fault of its own."""


@contextmanager
def limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, PATIENCE))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def run(*arguments: str | Path) -> Outcome:
    """Run the command line in this process."""
    said = io.StringIO()
    with limited(), redirect_stdout(said), redirect_stderr(said):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as left:  # argparse
            code = left.code if isinstance(left.code, int) else 1
    return Outcome(code, said.getvalue())


def command(workspace: Workspace, verb: str) -> Outcome:
    """Run a verb on the workspace as it stands."""
    root = workspace.root
    settings = ("--config", root / "params.yaml", "--quiet")
    match verb:
        case "plan":
            return run(*PLAN, *settings)
        case "generate":
            return run("generate", "--adapter", root / "package", "--conversation", root / "question.json", *settings)
        case _:
            return run(verb, *settings)


def odd_json(value: Any, chosen: random.Random) -> Any:
    """Change one place of a JSON value: another value, a key gone, doubled in another spelling, or deep nesting."""
    value = copy.deepcopy(value)
    holders: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            holders.append((node, key))
            walk(node[key])

    walk(value)
    if not holders or chosen.random() < 0.05:
        return chosen.choice(ODD_VALUES)
    node, key = chosen.choice(holders)
    kind = chosen.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[str(key).swapcase()] = node[key]
    elif kind == 2:
        for _ in range(chosen.choice([2, 50, 400])):
            node[key] = chosen.choice([[node[key]], {"content": node[key]}])
    else:
        node[key] = chosen.choice(ODD_VALUES)
    return value


def odd_bytes(content: bytes, chosen: random.Random) -> bytes:
    """Change some bytes: a bit, a cut, an insertion, a part twice, zeros, another beginning."""
    place = chosen.randrange(len(content) + 1)
    width = chosen.choice([1, 4, 64, 1024])
    match chosen.randrange(7):
        case 0 | 1 if content:
            place = min(place, len(content) - 1)
            return content[:place] + bytes([content[place] ^ 1 << chosen.randrange(8)]) + content[place + 1 :]
        case 2:
            return content[:place]
        case 3:
            return content[:place] + chosen.choice(ODD_BYTES) + content[place:]
        case 4:
            return content[:place] + content[max(0, place - width) :]
        case 5:
            return content[:place] + bytes(width) + content[place + width :]
        case _:
            return chosen.choice(ODD_BYTES) + content[width:]


def as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=bool(len(str(value)) % 2))


def a_line(chosen: random.Random) -> bytes:
    """A conversation's line, with at most a few faults."""
    messages = [copy.deepcopy(chosen.choice(MESSAGES)) for _ in range(chosen.randrange(7))]
    key = "conversations" if chosen.random() < 0.2 else "messages"
    value: Any = {"id": str(chosen.random()), key: messages}
    for _ in range(chosen.randrange(3)):
        value = odd_json(value, chosen)
    line = as_text(value).encode("utf-8", "surrogatepass")
    return odd_bytes(line, chosen) if chosen.random() < 0.3 else line


def conversations(workspace: Workspace, chosen: random.Random) -> None:
    """validate, convert and render on lines of conversations."""
    data, output = workspace.root / "odd", workspace.root / "odd-output"
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(output, ignore_errors=True)
    data.mkdir()
    good = (workspace.root / "data" / "train.jsonl").read_bytes().splitlines(keepends=True)
    lines = [a_line(chosen) + b"\n" for _ in range(chosen.randrange(1, 4))] + good[: chosen.randrange(3)]
    suffix = chosen.choice(["jsonl", "jsonl", "jsonl", "json", "csv"])
    (data / f"train.{suffix}").write_bytes(b"".join(lines))
    places = [f"data.path={data}", f"paths.dataset={output / 'dataset'}", f"paths.reports={output / 'reports'}"]
    settings = [part for place in places for part in ("--set", place)]
    verb = chosen.choice(["validate", "validate", "validate", "render", "convert"])
    if verb == "convert":
        ends(run("convert", *data.iterdir(), "--output", output / "converted", "--quiet"))
    else:
        skip = ("--set", "data.skip_bad=true") if chosen.random() < 0.3 else ()
        ends(run(verb, "--config", workspace.root / "params.yaml", "--quiet", *settings, *skip))


def odd_settings(workspace: Workspace, chosen: random.Random) -> None:
    """validate and the plan on settings: a file that was changed, or --set."""
    text = (workspace.root / "params.yaml").read_text(encoding="utf-8")
    path = workspace.root / "odd.yaml"
    sets: list[str] = []
    if chosen.random() < 0.5:
        name, value = chosen.choice(SETTINGS), chosen.choice(YAML_VALUES + [as_text(odd) for odd in ODD_VALUES])
        sets = ["--set", f"{name}={value}"]
        path.write_text(text, encoding="utf-8")
    elif chosen.random() < 0.5:
        path.write_bytes(as_text(odd_json(yaml.safe_load(text), chosen)).encode("utf-8", "surrogatepass"))
    else:
        lines = text.splitlines(keepends=True)
        lines.insert(
            chosen.randrange(len(lines)), f"{chosen.choice(['x', 'model', '  y'])}: {chosen.choice(YAML_VALUES)}\n"
        )
        path.write_bytes(odd_bytes("".join(lines).encode(), chosen))
    report = ["--set", f"paths.reports={workspace.root / 'odd-output'}"]
    sets = [text.replace("\x00", "?").encode("utf-8", "replace").decode() for text in [*report, *sets]]
    verb = chosen.choice([("validate",), ("validate",), PLAN])
    ends(run(*verb, "--config", path, "--quiet", *sets))


def questions(workspace: Workspace, chosen: random.Random) -> None:
    """generate on a file that holds no conversation to answer."""
    path = workspace.root / "odd.json"
    value: Any = {"messages": [{"role": "user", "content": "ask ana"}, {"role": "nobody", "content": "ana tea"}]}
    path.write_bytes(odd_bytes(as_text(odd_json(value, chosen)).encode("utf-8", "surrogatepass"), chosen))
    ends(run("generate", "--config", workspace.root / "params.yaml", "--conversation", path, "--quiet"))


def written_files(workspace: Workspace, chosen: random.Random) -> None:
    """What ocrmem wrote itself, damaged: every verb that reads it says no, and names the file."""
    path, verbs = chosen.choice(workspace.places())
    verb = chosen.choice(verbs)
    whole = path.read_bytes()
    try:
        kind = chosen.randrange(10)
        if kind == 0:
            if (verb, path.name) in MAY_BE_ABSENT:
                return
            path.unlink()
        elif kind == 1:
            path.unlink()
            path.mkdir()
        elif kind == 2:
            path.unlink()
            path.symlink_to(path.name)
        elif kind < 6 and path.suffix == ".json":
            changed = odd_json(json.loads(whole), chosen)
            path.write_bytes(as_text(changed).encode("utf-8", "surrogatepass"))
            if changed == json.loads(whole):
                return
        else:
            changed_bytes = odd_bytes(whole, chosen)
            if same_meaning(path, whole, changed_bytes):
                return
            path.write_bytes(changed_bytes)
        outcome = command(workspace, verb)
        ends(outcome)
        assert outcome.code != 0, f"{verb} used {path.name} though it was damaged"
    finally:
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)


def same_meaning(path: Path, whole: bytes, changed: bytes) -> bool:
    """Whether a change is none: white space of JSON, or what lies behind the rows and lines that a store counts."""
    if whole == changed:
        return True
    if path.suffix == ".json":
        try:
            return bool(json.loads(whole) == json.loads(changed))
        except (ValueError, RecursionError):
            return False
    return path.name.startswith("rows-") and changed.startswith(whole)


def ends(outcome: Outcome) -> None:
    assert outcome.code in ENDS, outcome
    assert "Traceback" not in outcome.said
    # A no says what to do.
    assert outcome.code == 0 or outcome.said.strip().endswith((".", "?")) or "usage:" in outcome.said, outcome.said


FAMILIES: list[Callable[[Workspace, random.Random], None]] = [
    conversations,
    odd_settings,
    written_files,
    written_files,
    questions,
]


def one(workspace: Workspace, seed: int) -> None:
    """Run the input of a seed."""
    chosen = random.Random(seed)
    FAMILIES[seed % len(FAMILIES)](workspace, chosen)


@pytest.mark.parametrize("seed", range(PINNED))
def test_a_pinned_input_ends_as_it_should(workspace: Workspace, seed: int) -> None:
    one(workspace, seed)


@pytest.mark.slow
def test_no_input_ends_in_a_traceback_or_hangs_and_no_damaged_file_is_used(workspace: Workspace) -> None:
    faults = []
    for seed in range(PINNED, INPUTS):
        try:
            one(workspace, seed)
        except (Exception, Hang) as error:  # noqa: BLE001  # every fault is told, with its seed
            faults.append(f"{seed} ({FAMILIES[seed % len(FAMILIES)].__name__}): {type(error).__name__}: {error}"[:500])
    assert not faults, "\n".join(faults)


def test_the_workspace_is_whole_before_and_after(workspace: Workspace) -> None:
    for verb in ("validate", "plan", "smoke", "encode"):
        assert command(workspace, verb).code == 0, verb

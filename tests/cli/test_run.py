"""The command line as a person or a script meets it; through real processes where those are the point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ocrmem.cli import build_parser, main
from ocrmem.console import console
from ocrmem.steps import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ocrmem", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def test_help_names_every_verb(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for verb in COMMANDS:
        assert f"\n    {verb}" in done.stdout


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help_of_its_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args([verb, "--help"])
    assert left.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nope"], ["help", "nope"], ["train", "--nope"], ["render", "--preview", "0"]])
def test_wrong_usage_leaves_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", [name for name, step in COMMANDS.items() if step.takes_config])
def test_a_missing_configuration_is_named_without_a_traceback(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    needed = {"generate": ["--conversation", "-"], "prose": ["--output", "out"]}.get(verb, [])
    assert main([verb, "--config", "nowhere.yaml", *needed]) == 2
    said = capsys.readouterr().err
    assert "nowhere.yaml" in said
    assert "Traceback" not in said


def test_json_errors_are_one_object_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("trian: {}\nmodel: {base_model_name: ''}\n", encoding="utf-8")
    done = run("encode", "--json", cwd=tmp_path)
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    places = " ".join(problem["place"] for problem in answer["problems"])
    assert "trian" in places
    assert "model.base_model_name" in places
    assert done.stderr == ""


MADE_BEFORE = [
    ("check", "render"),
    ("encode", "render"),
    ("smoke", "render"),
    ("train", "render"),
    ("evaluate", "train"),
]


@pytest.mark.parametrize(("verb", "first"), MADE_BEFORE)
def test_a_verb_without_its_input_names_the_verb_to_run(
    verb: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        "model: {context_threshold: 16, max_seq_length: 256, vision_embedding_size: 64}\n"
        "render: {page_size: 256, token_size: 32, line_height: 32, max_pages: 1}\n",
        encoding="utf-8",
    )
    assert main([verb]) == 2
    said = capsys.readouterr().err
    assert f"ocrmem {first}" in said
    assert "Traceback" not in said


def test_a_library_that_is_not_installed_names_the_extra(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "samples" / "conversations")
    code = (
        "import sys; sys.modules['pyarrow'] = None; from ocrmem.cli import main; sys.exit(main(['render', '--quiet']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "ocrmem render: needs the package pyarrow, which is not installed. Run: pip install 'ocrmem[dataset]'.\n"
    )


FULL = "stdout: cannot be written (No space left on device); what `ocrmem synth` was to do is done. "
STREAMS = [
    ("| true", 0, ""),  # the reader has gone
    (">&-", 0, ""),
    (">&- 2>&-", 0, ""),
    ("2>/dev/full", 0, ""),
    (">/dev/full", 2, FULL),
    ("--json >/dev/full", 2, FULL),
    (">/dev/full 2>/dev/full", 2, ""),
]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("streams", "code", "said"), STREAMS)
def test_a_stream_that_takes_nothing_does_not_undo_the_work(streams: str, code: int, said: str, tmp_path: Path) -> None:
    verb = f"{sys.executable} -m ocrmem synth --output out --count 2 --eval-count 1 --quiet"
    command = f"set -o pipefail; {verb} {streams}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == bool(said)
    assert done.stderr.startswith(said)
    assert len((tmp_path / "out" / "train.jsonl").read_text().splitlines()) == 2


def test_help_into_a_full_disk_ends_without_a_traceback() -> None:
    command = f"{sys.executable} -m ocrmem --help >/dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""


def test_a_result_that_the_console_cannot_show_is_printed_in_escapes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ocrmem", "synth", "--output", "söhne", "--count", "2", "--eval-count", "1"]
    for options, expected in (["--json"], "s\\u00f6hne/train.jsonl"), ([], "s\\xf6hne/train.jsonl"):
        done = subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            env=dict(os.environ) | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_a_quiet_verb_leaves_notes_of_the_process_on(tmp_path: Path) -> None:
    assert main(["validate", "--quiet", "--config", str(tmp_path / "none.yaml")]) == 2
    assert not console.quiet

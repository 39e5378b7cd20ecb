"""What the shells offer at Tab, asked of the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ocrmem.cli import main
from ocrmem.steps import COMMANDS

# The words typed so far, the last of them to be completed, and what is offered.
OFFERED = [
    (["re"], {"render", "register"}),
    (["--quiet", "tra"], {"train"}),
    (["pipeline", ""], {"run", "compile", "submit", "list"}),
    (["pipeline", "run", "--l"], {"--local"}),
    (["synth", "--style", ""], {"tiny", "en", "en-plain", "zh", "mixed"}),
    (["train", "--launcher", "k"], {"kubernetes"}),
    (["ask", "render", "--comp"], {"--compare"}),
    (["completion", ""], {"bash", "zsh", "fish"}),
]


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def ran(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(("words", "offered"), OFFERED, ids=[" ".join(words) for words, _ in OFFERED])
def test_bash_offers(words: list[str], offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = " ".join(f"'{word}'" for word in ["ocrmem", *words])
    code = f". {script('bash', tmp_path, capsys)}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _ocrmem; "
    assert set(ran(["bash", "-c", code + 'echo "${COMPREPLY[@]}"'], tmp_path).split()) == offered


def test_bash_leaves_files_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("bash", tmp_path, capsys)
    code = f". {path}; COMP_WORDS=(ocrmem check --config pa); COMP_CWORD=3; _ocrmem; echo ${{#COMPREPLY[@]}}"
    assert ran(["bash", "-c", f"{code}; complete -p ocrmem"], tmp_path).split("\n")[:2] == [
        "0",
        "complete -o default -F _ocrmem ocrmem",
    ]


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(("words", "offered"), OFFERED, ids=[" ".join(words) for words, _ in OFFERED])
def test_fish_offers(words: list[str], offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("fish", tmp_path, capsys)
    lines = ran(["fish", "-c", f"source {path}; complete -C 'ocrmem {' '.join(words)}'"], tmp_path).splitlines()
    assert {line.partition("\t")[0] for line in lines} == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes_in_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("zsh", tmp_path, capsys)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], dict(os.environ) | {"TERM": "dumb", "PS1": "> "})
    try:
        os.write(terminal, f"autoload -U compinit; compinit -u -D; . {path}; echo rea''dy\n".encode())
        read_until(terminal, b"ready")
        for typed, completed in ((b"ocrmem tra\t", b"train"), (b"--laun\t", b"launcher"), (b"kub\t", b"kubernetes")):
            os.write(terminal, typed)
            read_until(terminal, completed)
    finally:
        os.close(terminal)
        os.kill(child, signal.SIGKILL)  # a shell may outlive its terminal
        os.waitpid(child, 0)


def read_until(terminal: int, wanted: bytes) -> None:
    """Read what a terminal shows until it has a text."""
    shown = b""
    while wanted not in shown:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        shown += os.read(terminal, 4096)


def test_every_verb_is_in_every_script(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        words = capsys.readouterr().out.replace("/", " ").replace("|", " ").split()
        assert set(COMMANDS) <= set(words), shell

"""A Dockerfile's instructions, as far as this project's tests ask for them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_STAGE = re.compile(r"(?P<image>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)
_FLAG = re.compile(r"--[a-z]+=\S+\s+")


@dataclass(frozen=True)
class Instruction:
    """One instruction: the number of its stage, its name in capitals, its text on one line."""

    stage: int
    name: str
    text: str

    @property
    def flags(self) -> list[str]:
        """``--from=build`` and the like, in front of the rest."""
        found = []
        rest = self.text
        while match := _FLAG.match(rest):
            found.append(match.group().strip())
            rest = rest[match.end() :]
        return found

    @property
    def body(self) -> str:
        """The text without flags."""
        rest = self.text
        while match := _FLAG.match(rest):
            rest = rest[match.end() :]
        return rest


class Dockerfile:
    """The instructions of a file, in order."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
        self.instructions: list[Instruction] = []
        stage = -1
        for line in filter(str.strip, joined.splitlines()):
            name, _, rest = line.strip().partition(" ")
            stage += name.upper() == "FROM"
            self.instructions.append(Instruction(stage, name.upper(), rest.strip()))
        self.last_stage = stage

    def all(self, name: str, stage: int | None = None) -> list[Instruction]:
        return [one for one in self.instructions if one.name == name and stage in (None, one.stage)]

    def stage(self, name: str) -> int:
        """The number of a named stage."""
        for one in self.all("FROM"):
            match = _STAGE.fullmatch(one.text)
            if match and match["name"] == name:
                return one.stage
        raise KeyError(name)

    def pairs(self, name: str, stage: int) -> dict[str, str]:
        """The variables of a stage's ENV, LABEL or ARG instructions; an ARG without a default has an empty one."""
        found: dict[str, str] = {}
        for one in self.all(name, stage):
            for word in shlex.split(one.text):
                key, _, value = word.partition("=")
                found[key] = value
        return found

    def copied_from_context(self) -> list[str]:
        """The sources of every COPY that takes them from the build context."""
        return [
            source
            for one in self.all("COPY")
            if not any(flag.startswith("--from=") for flag in one.flags)
            for source in one.body.split()[:-1]
        ]

    def writable_places(self) -> dict[str, str]:
        """The variables of the image that name a directory to write to."""
        env = self.pairs("ENV", self.last_stage)
        return {name: value for name, value in env.items() if value.startswith("/") and name != "PATH"}


def ignored(path: str, rules: list[str]) -> bool:
    """Whether a .dockerignore keeps a path out of the build context: the last rule for it or a folder of it decides."""
    verdict = False
    for rule in rules:
        wanted = rule.removeprefix("!").strip("/")
        parts = path.split("/")
        folders = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        patterns = [wanted, wanted.removeprefix("**/")]
        if any(fnmatch(folder, pattern) for folder in folders for pattern in patterns):
            verdict = not rule.startswith("!")
    return verdict

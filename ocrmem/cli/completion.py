"""The scripts by which bash, zsh and fish complete verbs, options and their choices, made from the parser.

They are text, so completing starts no Python, as argcomplete would at every Tab; and shtab, which writes such scripts
too, would be a package more to install.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field

_BASH = """\
_ocrmem() {{
    local verb= words= options= word current="${{COMP_WORDS[COMP_CWORD]}}"
    for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
        case "$verb/$word" in
            {paths}) verb="$verb/$word" ;;
        esac
    done
    case "$verb ${{COMP_WORDS[$((COMP_CWORD - 1))]}}" in
{values}
        *) case "$verb" in
{candidates}
        esac ;;
    esac
    case "$current" in -*) words="$options" ;; esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _ocrmem ocrmem"""


@dataclass
class _Command:
    """What can follow a verb.

    Attributes:
        path: the verbs that lead to it.
        candidates: verbs, options and choices of its own, with their help.
        values: of each option that takes a value its choices; none where it is a file or anything else.
    """

    path: tuple[str, ...]
    candidates: dict[str, str] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def pattern(self) -> str:
        return "".join(f"/{verb}" for verb in self.path)

    def words(self, begin: str) -> str:
        """Return its options, which begin with ``-``, or with ``begin`` empty all else."""
        return " ".join(word for word in self.candidates if word.startswith("-") == bool(begin))


def bash(parser: argparse.ArgumentParser) -> str:
    """Return the script for bash; an option with any value, and what is no option, is completed as a file name."""
    commands = list(_commands(parser))
    by_words: dict[str, list[str]] = {}
    for command in commands:
        for option, choices in command.values.items():
            by_words.setdefault(" ".join(choices), []).append(f'"{command.pattern} {option}"')
    return _BASH.format(
        paths="|".join(command.pattern for command in commands if command.path),
        values="\n".join(f'        {"|".join(patterns)}) words="{words}" ;;' for words, patterns in by_words.items()),
        candidates="\n".join(
            f'            "{command.pattern}") words="{command.words("")}" options="{command.words("-")}" ;;'
            for command in commands
        ),
    )


def zsh(parser: argparse.ArgumentParser) -> str:
    """Return the script for zsh, which takes bash's."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash(parser)}"


def fish(parser: argparse.ArgumentParser) -> str:
    """Return the script for fish, which shows the help beside each word."""
    return "\n".join(_fish_lines(parser))


def _fish_lines(parser: argparse.ArgumentParser) -> Iterator[str]:
    commands = list(_commands(parser))
    for command in commands:
        behind = [f"__fish_seen_subcommand_from {verb}" for verb in command.path]
        nested = [other.path[-1] for other in commands if other.path[:-1] == command.path and other.path]
        if nested:
            behind.append(f"not __fish_seen_subcommand_from {' '.join(nested)}")
        for word, help_ in command.candidates.items():
            line = f"complete -c ocrmem -n '{'; and '.join(behind)}'"
            if not word.startswith("-"):
                line += f" -f -a {word}"
            else:
                line += f" -l {word[2:]}" if word.startswith("--") else f" -s {word[1:]}"
            if (choices := command.values.get(word)) is not None:
                line += f" -x -a '{' '.join(choices)}'" if choices else " -r"
            quoted = help_.replace("\\", "\\\\").replace("'", "\\'")
            yield f"{line} -d '{quoted}'"


def _commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[_Command]:
    """Yield what a parser and the parsers of its verbs take."""
    found, nested = _Command(path), {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            nested = action.choices
            found.candidates |= {verb.dest: verb.help or "" for verb in action._choices_actions}
            continue
        choices = tuple(map(str, action.choices or ()))
        found.candidates |= dict.fromkeys(action.option_strings or choices, action.help or "")
        if action.nargs != 0:
            found.values |= dict.fromkeys(action.option_strings, choices)
    yield found
    for verb, below in nested.items():
        yield from _commands(below, (*path, verb))


SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}

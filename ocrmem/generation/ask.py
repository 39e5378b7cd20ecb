"""The verb ``ask``: questions about files, answered from memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from ocrmem.arguments import as_paths
from ocrmem.boxed import ENGLISH
from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import ConfigError
from ocrmem.evaluation.result import VARIANTS
from ocrmem.generation.chat_session import ChatSession
from ocrmem.generation.memory import Memory, MemoryAnswer, as_question
from ocrmem.generation.reading import read_file
from ocrmem.generation.settings import adapter_and_settings


class AskResult(TypedDict):
    """The answers, what they were read from, and lines for a person.

    Attributes:
        text: the answers, a line each.
        text_tokens, memory_tokens, pages, warnings: as `MemoryAnswer` has them; the same for every question.
        answers: of each question itself, ``text`` and ``compared``.
        adapter: where it lies.
    """

    text: str
    text_tokens: int
    memory_tokens: int
    pages: int
    warnings: list[str]
    answers: list[dict[str, Any]]
    adapter: str
    summary: list[str]


def ask(
    files: str | Path | Sequence[str | Path],
    questions: str | Sequence[str],
    adapter: str | Path | None = None,
    *,
    compare: bool = False,
    config: RunConfig | None = None,
) -> AskResult:
    """Remember files, and answer each question from memory, independently of the others.

    Args:
        files: one or several of text, Markdown or conversations, see `read_file`; ``-`` is standard input.
        questions: one or several.
        adapter: a name in the box, a directory or ``models:/NAME@ALIAS``; None: "english", or ``paths.adapter`` of a
            ``config``.
        compare: also answer from the full text, from its end in as many tokens as memory has, and from nothing.
        config: the settings of a run; None: the adapter's own.

    Raises:
        MissingInputError: a file is not there.
        ConfigError: a file cannot be read, there is no such adapter, or there is no question.
        DataError: a file is empty, not text, or holds conversations that cannot be read; or a question is empty.
        ModelError: the adapter was changed, or does not fit its models.
    """
    named = as_paths("ocrmem.ask", files)
    several = questions if isinstance(questions, Sequence) and not isinstance(questions, str) else [questions]
    asked = [as_question(question) for question in several]
    if not named or not asked:
        raise ConfigError.of("ask", "needs files and questions", "Name at least one of each")
    memory = remembering(named, adapter, config)
    answers = [memory.ask(question, compare=compare) for question in asked]
    first = answers[0]
    warnings = list(dict.fromkeys(warning for answer in answers for warning in answer.warnings))
    for warning in warnings:
        note(f"Warning: {warning}.")
    return {
        "text": "\n".join(answer.text for answer in answers),
        "text_tokens": first.text_tokens,
        "memory_tokens": first.memory_tokens,
        "pages": first.pages,
        "warnings": warnings,
        "answers": [
            {"question": answer.question, "text": answer.text}
            | ({"compared": {name: asdict(other) for name, other in answer.compared.items()}} if compare else {})
            for answer in answers
        ],
        "adapter": str(adapter or (config.paths.adapter if config else ENGLISH)),
        "summary": [*_summary(answers), "", first.told],
    }


def remembering(files: Sequence[str | Path], adapter: str | Path | None, config: RunConfig | None) -> Memory:
    """Return a memory of files. They are read before a model is looked for, so that a misspelt name costs no time.

    Raises:
        OcrMemError: as `ask`.
    """
    directory, settings = adapter_and_settings(adapter, config)
    read = [read_file(file, settings.model.family) for file in files]
    memory = Memory(ChatSession.open(settings, directory, context_threshold=0))
    for file, found in zip(files, read, strict=True):
        if isinstance(found, list):
            memory.messages += found
            continue
        from ocrmem.rendering.picture import page_of  # Pillow, which texts do not need

        picture = page_of(found, str(file), memory.page_size)
        note(f"{picture.name} is a picture, whose text is not counted: {picture.told}")
        memory.keep(picture)
    return memory


def _summary(answers: Sequence[MemoryAnswer]) -> Iterator[str]:
    for answer in answers:
        if len(answers) == 1 and not answer.compared:
            yield answer.text
            continue
        yield answer.question
        if answer.compared:
            yield _row("memory", answer.memory_tokens, answer.text)
        else:
            yield f"  {answer.text}"
        for name, other in answer.compared.items():
            cut = (
                f" ({other.dropped_tokens:,} tokens were left out)"
                if name == "full_text" and other.dropped_tokens
                else ""
            )
            yield _row(VARIANTS[name].name, other.tokens, other.text) + cut


def _row(title: str, tokens: int, text: str) -> str:
    return f"  {title:<19} {tokens:>7,} tokens  {text}"

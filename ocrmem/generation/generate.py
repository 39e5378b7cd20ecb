"""The verb ``generate``: answer the last question of one conversation from memory."""

from __future__ import annotations

from pathlib import Path

from ocrmem.arguments import as_path
from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.generation.chat_session import Answer, ChatSession
from ocrmem.generation.question import read_question, read_source
from ocrmem.model.configuration import MEMConfig


class GenerateResult(Answer):
    """The answer, the one that the conversation ends with (if any), and what a person reads."""

    expected: str | None
    adapter: str
    summary: list[str]


def generate(config: RunConfig, adapter: str | None = None, conversation: str | Path = "-") -> GenerateResult:
    """Answer a conversation's last question, with its older turns as memory.

    Args:
        config: names the models' places, the device and the registry.
        adapter: a directory or ``models:/NAME@ALIAS``; None: ``paths.adapter``.
        conversation: a JSON file, or JSONL of one line; ``-`` reads standard input. An answer after the last
            user message is left out and reported as ``expected``.

    Raises:
        ConfigError: the conversation or the adapter does not exist.
        DataError: the conversation cannot be read, or asks nothing.
        ModelError: the adapter was changed, or does not fit the base model, encoder or settings.
    """
    remedy = "Give a JSON file with one conversation, or - for standard input"
    if conversation != "-":
        conversation = as_path("ocrmem.generate(conversation)", conversation)
    asked, expected = read_question(*read_source(conversation, remedy), config.model.family)
    session = ChatSession.open(config, adapter)
    answer = session.answer_to(asked)
    for warning in answer["warnings"]:
        note(f"Warning: {warning}.")
    summary = _summary(answer, session.model.config)
    return {**answer, "expected": expected, "adapter": adapter or config.paths.adapter, "summary": summary}


def _summary(result: Answer, trained: MEMConfig) -> list[str]:
    lines = [result["answer"], ""]
    if result["memory"]:
        lines.append(
            f"{result['history_tokens']} text tokens of history became {result['vision_tokens']} vision "
            f"tokens on {result['pages']} {'page' if result['pages'] == 1 else 'pages'}: "
            f"{result['compression_ratio']:.2f} text tokens per memory token."
        )
    else:
        lines.append(
            f"The history has {result['history_tokens']} tokens, no more than the threshold of "
            f"{trained.context_threshold}: "
            "it stayed text, and no memory was used."
        )
    if result["dropped_tokens"]:
        lines.append(f"{result['dropped_tokens']} of the oldest text tokens did not fit and were left out.")
    if trained.lora is not None:
        lines.append("The adapter's LoRA changes the language model.")
    return lines

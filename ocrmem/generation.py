"""The verb ``generate``: answer the last question of one conversation from memory.

The adapter's own config.json says how the history is split, drawn and encoded, so the pages are those the
adapter was trained on, whatever params.yaml says about them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from ocrmem.adapter import has_provenance, verify_package
from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.conversations import Conversation, Message
from ocrmem.conversations.parse import ROLES, parse_line
from ocrmem.dataset.making import SampleMaker
from ocrmem.dataset.schema import Sample
from ocrmem.encoder.pages import Encoder
from ocrmem.errors import ConfigError, DataError, MissingInputError, Problem
from ocrmem.evaluation.pixels import DrawnMemory, encode_memory
from ocrmem.evaluation.scoring import Case, Scorer
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.registry import resolve_adapter
from ocrmem.render import Page
from ocrmem.tokens import load_tokenizer

# On the tiny preset, features of held-out pages have a shift of 0.07 to 0.45 and a spread of 0.07 to 0.29; an
# encoder with random weights has a spread above 3, features three times too large have both over the limit.
SHIFT_LIMIT = 1.0  # of the mean, in training standard deviations
SPREAD_LIMIT = 0.7  # of the standard deviation: about a factor of two
_ENOUGH_TOKENS = 8  # fewer say nothing about a standard deviation
_PLACEHOLDER_ANSWER = "?"  # stands where the model is to answer, so that the usual rules split the turns


def generate(config: RunConfig, adapter: str | None = None, conversation: str | Path = "-") -> dict[str, Any]:
    """Answer a conversation's last question, with its older turns as memory.

    Args:
        config: names the models' places, the device and the registry.
        adapter: a directory or ``models:/NAME@ALIAS``; None: ``paths.adapter``.
        conversation: a JSON file, or JSONL of one line; ``-`` reads standard input. An answer after the last
            user message is left out and reported as ``expected``.

    Returns:
        ``answer``, ``expected``, ``adapter``, ``memory`` (whether there was any), ``history_tokens``,
        ``vision_tokens``, ``memory_tokens`` (the two marks included), ``pages``, ``dropped_pages``,
        ``dropped_tokens``, ``compression_ratio``, ``feature_distance``, ``warnings`` and ``summary``.

    Raises:
        ConfigError: the conversation or the adapter is not there.
        DataError: the conversation cannot be read, or asks nothing.
        ModelError: the adapter was changed, or does not fit the base model, encoder or settings.
    """
    asked, expected = read_question(*_read(conversation))
    reference = adapter or config.paths.adapter
    directory = resolve_adapter(reference, config)
    if has_provenance(directory):
        verify_package(directory)
    model = MEMModel.from_pretrained(directory, run_config=config, with_encoder=True).eval()
    tokenizer = load_tokenizer(config)
    maker = SampleMaker(as_trained(config, model.config), tokenizer)
    sample, drawn = _make_sample(maker, asked)
    case = _case(maker, model, sample, drawn)
    distance = None if case.features is None else feature_distance(model, case.features)
    warnings = _warnings(distance, sample)
    scorer = Scorer(
        model,
        tokenizer,
        maker.builder.end_token_id,
        batch_size=1,
        max_new_tokens=config.evaluate.max_new_tokens,
    )
    result = {
        "answer": scorer.answers([case])[0],
        "expected": expected,
        "adapter": reference,
        "memory": sample.has_memory,
        "history_tokens": sample.history_tokens,
        "vision_tokens": sample.memory_tokens,
        "memory_tokens": sample.memory_tokens + 2 if sample.has_memory else 0,
        "pages": len(sample.pages),
        "dropped_pages": sample.dropped_pages,
        "dropped_tokens": case.question.dropped_tokens,
        "compression_ratio": round(sample.compression_ratio, 4) if sample.has_memory else None,
        "feature_distance": distance,
        "warnings": warnings,
    }
    for warning in warnings:
        note(f"Warning: {warning}.")
    return {**result, "summary": _summary(result, model.config.context_threshold)}


def read_question(raw: bytes, place: str) -> tuple[Conversation, str | None]:
    """Parse one conversation that ends with a question, or with an answer to it.

    Args:
        raw: JSON of one conversation, in one of the forms of training data.
        place: names it in errors.

    Returns:
        The conversation, closed by a placeholder that alone has weight, so that it gives exactly the sample
        of the question; and the conversation's own answer, if it has one.

    Raises:
        DataError: every fault found.
    """
    value = _one_object(raw, place)
    form = "messages" if value.get("messages") is not None else "conversations"
    given = value.get(form)
    if not isinstance(given, list) or not given:
        raise DataError.of(place, "has no messages", 'Write {"messages": [{"role": "user", "content": "..."}]}')
    role, content = ("role", "content") if form == "messages" else ("from", "value")
    ending = {role: "assistant", content: _PLACEHOLDER_ANSWER}
    closed = given if _is_answer(given[-1]) else [*given, ending]
    parsed = parse_line(json.dumps({**value, form: closed}).encode(), place)
    if parsed.problems:
        raise DataError(parsed.problems)
    *earlier, last = parsed.messages
    if not any(message.role == "user" for message in earlier):
        raise DataError.of(place, "asks nothing: it has no user message", "End it with a question")
    messages = [replace(message, weight=0) for message in earlier]
    messages.append(Message("assistant", _PLACEHOLDER_ANSWER))
    expected = last.content if closed is given else None
    return Conversation(parsed.id, tuple(messages), "eval", place), expected


def as_trained(config: RunConfig, adapter: MEMConfig) -> RunConfig:
    """The run's settings with those of the adapter wherever a sample depends on them."""
    names = ("context_threshold", "max_seq_length", "drop_blank_tokens")
    model = config.model.model_copy(update={name: getattr(adapter, name) for name in names})
    data = config.data.model_copy(update={"recent_turns": adapter.recent_turns})
    return config.model_copy(update={"model": model, "data": data, "render": adapter.render_section()})


def feature_distance(model: MEMModel, features: torch.Tensor) -> dict[str, float] | None:
    """How far features [m, d] are from those the adapter was trained on.

    Returns:
        ``shift``: mean over channels of |mean - trained mean| in trained standard deviations. ``spread``:
        mean over channels of |ln(standard deviation / trained one)|; left out for a handful of tokens. None
        for an adapter without statistics (an imported one).
    """
    shift = model.feature_drift(features)
    if shift is None or model.feature_std is None:
        return None
    distance = {"shift": round(shift, 4)}
    trained = model.feature_std.float().cpu()
    alive = trained > 0
    if len(features) >= _ENOUGH_TOKENS and alive.any():
        now = features.std(0, unbiased=False)[alive].clamp(min=1e-6)
        distance["spread"] = round(float((now / trained[alive]).log().abs().mean()), 4)
    return distance


def _read(conversation: str | Path) -> tuple[bytes, str]:
    if str(conversation) == "-":
        return sys.stdin.buffer.read(), "standard input"
    path = Path(conversation)
    try:
        return path.read_bytes(), str(path)
    except FileNotFoundError:
        raise MissingInputError.of(
            str(path), "is not there", "Give a JSON file with one conversation, or - for standard input"
        ) from None
    except OSError as error:
        raise ConfigError.of(str(path), f"cannot be read ({error.strerror})", "Give a readable file") from None


def _one_object(raw: bytes, place: str) -> dict[str, Any]:
    """The one JSON object of a file, spread over lines or as a line of its own."""
    lines = [line for line in raw.splitlines() if line.strip()]
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        if len(lines) > 1 and not parse_line(lines[0], place).problems:
            raise DataError.of(
                place, f"holds {len(lines)} lines", f"Give one conversation, such as: sed -n 1p {place}"
            ) from None
        problems = parse_line(raw.strip(), place).problems
        raise DataError(problems or Problem(place, "is not one JSON object", "Give one conversation")) from None
    if not isinstance(value, dict):
        raise DataError.of(place, "is not a JSON object", 'Write {"messages": [...]}')
    return value


def _is_answer(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    role = message.get("role", message.get("from"))
    return isinstance(role, str) and ROLES.get(role.strip().lower()) == "assistant"


def _make_sample(maker: SampleMaker, asked: Conversation) -> tuple[Sample, DrawnMemory | None]:
    """The question's sample as `ocrmem render` makes it, and its pages."""
    made = maker.make(asked)
    if made.problems:
        raise DataError(made.problems)
    sample = made.samples[-1]
    if not sample.has_memory:
        return sample, None
    rows = {row.hash: row for row in made.pages}
    used = [rows[name] for name in sample.pages]
    drawn = DrawnMemory.of(
        [Page.from_bytes(row.bits, row.size, row.atlas_version) for row in used],
        maker.config.render,
        drop_blank_tokens=maker.config.model.drop_blank_tokens,
        dropped=sample.dropped_pages,
    )
    return sample, drawn


def _case(maker: SampleMaker, model: MEMModel, sample: Sample, drawn: DrawnMemory | None) -> Case:
    history = () if drawn else sample.history
    question = maker.builder.build(sample.prompt, None, memory_tokens=sample.memory_tokens, history=history)
    features = encode_memory(cast(Encoder, model.ocr_embed), drawn) if drawn else None
    return Case(sample.id, question, question, "", features=features)


def _warnings(distance: dict[str, float] | None, sample: Sample) -> list[str]:
    found = []
    if distance and (distance["shift"] > SHIFT_LIMIT or distance.get("spread", 0.0) > SPREAD_LIMIT):
        figures = ", ".join(f"{name} {value:.2f}" for name, value in distance.items())
        found.append(
            f"the encoder's features are unlike those the adapter was trained on ({figures}), so the answer "
            "may mean nothing: check the encoder, the precision and the kind of text"
        )
    if sample.dropped_pages:
        found.append(f"the {sample.dropped_pages} oldest pages are over render.max_pages and were left out")
    return found


def _summary(result: dict[str, Any], threshold: int) -> list[str]:
    lines = [result["answer"], ""]
    if result["memory"]:
        lines.append(
            f"{result['history_tokens']} text tokens of history became {result['vision_tokens']} vision "
            f"tokens on {result['pages']} {'page' if result['pages'] == 1 else 'pages'}: "
            f"{result['compression_ratio']:.2f} text tokens per memory token."
        )
    else:
        lines.append(
            f"The history has {result['history_tokens']} tokens, no more than the threshold of {threshold}: "
            "it stayed text, and no memory was used."
        )
    if result["dropped_tokens"]:
        lines.append(f"{result['dropped_tokens']} of the oldest text tokens did not fit and were left out.")
    return lines

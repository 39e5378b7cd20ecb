"""``ocrmem render --preview``: conversations beside the pages that the encoder will see, before a dataset is built.

One HTML file in which every word leads to its vision tokens and back; pictures are shown as pages in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, Message, Role, locate_conversations
from ocrmem.dataset.preview_words import shown_words
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.schema import Sample
from ocrmem.files import write_bytes, write_text
from ocrmem.html.template import png_address, render_template
from ocrmem.rendering import Page, TokenSpans
from ocrmem.rendering.transcript import message_ends
from ocrmem.tokens import load_tokenizer

DIRECTORY = Path("preview")
_TEMPLATE, _SCRIPT = (Path(__file__).with_name(name) for name in ("preview.html.jinja", "preview.js"))
_LOOKED_AT = 200  # conversations in which those with memory are looked for
_SHOWN_PIXELS = 4 << 20  # of a conversation's pages: four of 1024 px
_LONGEST_TEXT = 3000  # characters shown of a message that is not on a page
_MOST_MESSAGES = 20  # the same for messages
_MOST_BYTES = 8 << 20  # what more conversations may not make the file exceed
# NUL is no text in HTML, and other controls show as nothing.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"}


class PreviewResult(TypedDict):
    """Result of a preview.

    ``preview`` is the HTML file, of ``bytes``; ``conversations`` has the figures of those in it, ``pictures`` the PNG
    files that pictures became.
    """

    preview: str
    bytes: int
    conversations: list[dict[str, Any]]
    pictures: list[str]
    summary: list[str]


def preview_dataset(config: RunConfig, limit: int, directory: Path = DIRECTORY) -> PreviewResult:
    """Show the last sample of some conversations as `ocrmem render` will make it: text, pages, vision tokens.

    Args:
        config: sections model (thresholds and tokenizer), render and data are used; no model is needed.
        limit: conversations in all, those with memory first; fewer if the file would grow beyond 8 MiB.
        directory: gets index.html.

    Raises:
        DataError: bad lines of data.
        ModelError: the base model's tokenizer does not load.
    """
    maker = SampleMaker(config, load_tokenizer(config))
    stored = locate_conversations(config)
    file = _Sections(limit)
    short: list[_Made] = []
    looked_at = 0
    for row in range(min(len(stored), _LOOKED_AT)):
        if file.full:
            break
        (conversation,) = stored.read(range(row, row + 1))
        looked_at += 1
        made = _Made(conversation, maker)
        if made.sample and made.sample.has_memory:
            file.add(made)
        elif len(short) < limit:
            short.append(made)
    sections, with_memory = file.sections, len(file.sections)
    for made in short:
        if not file.full:
            file.add(made)
    told = f"{_counted(len(sections), 'conversation')} of {len(stored):,}"
    if len(sections) > with_memory:
        told += f", {with_memory:,} with memory among the first {looked_at:,}"
    if file.bytes > _MOST_BYTES:
        told += f"; no more, so that the file stays below {_MOST_BYTES >> 20} MiB"
    path, size = _write(directory, config, told=told, sections=sections, pictures=[])
    figures = [section["figures"] for section in sections]
    return {
        "preview": str(path),
        "bytes": size,
        "conversations": figures,
        "pictures": [],
        "summary": [
            told,
            *(f"{one['place']}: {one['heading']}" for one in sections),
            f"preview: {path} ({_kilobytes(size)})",
        ],
    }


def preview_pictures(
    config: RunConfig, pictures: Sequence[str | Path], limit: int, directory: Path = DIRECTORY
) -> PreviewResult:
    """Show the pages that the first ``limit`` pictures become, see `read_picture`.

    Args:
        config: sections render and model.drop_blank_tokens are used.
        pictures: PNG and JPEG files.
        limit: pages in all.
        directory: gets index.html, and the pages as page-000.png and so on.

    Raises:
        MissingInputError, DataError: a picture is not there, or none.
        ModuleNotFoundError: Pillow is not installed.
    """
    from ocrmem.rendering.picture import read_picture  # Pillow, which drawn pages do not need

    read = [read_picture(picture, config.render.page_size) for picture in pictures[:limit]]
    paths = [directory / f"page-{number:03d}.png" for number in range(len(read))]
    sections = []
    for path, picture in zip(paths, read, strict=True):
        write_bytes(path, picture.page.png())
        sheet = _sheet(picture.page, config, 0, 1)
        heading = f"{picture.name} → {_counted(sheet['memory_tokens'], 'memory token')}"
        sections.append({"heading": heading, "told": picture.told, "sheets": [sheet]})
    told = f"{_counted(len(read), 'picture')} of {len(pictures):,}"
    index, size = _write(directory, config, told=told, sections=[], pictures=sections)
    return {
        "preview": str(index),
        "bytes": size,
        "conversations": [],
        "pictures": [str(path) for path in paths],
        "summary": [
            *(f"{path}: {picture.name}, {picture.told}" for path, picture in zip(paths, read, strict=True)),
            f"preview: {index} ({_kilobytes(size)})",
        ],
    }


def _write(directory: Path, config: RunConfig, **values: Any) -> tuple[Path, int]:
    path = directory / "index.html"
    html = render_template(
        _TEMPLATE, script=_SCRIPT, render=config.render, model=config.model, data=config.data, **values
    )
    write_text(path, html)
    return path, len(html.encode("utf-8"))


class _Sections:
    """What the file shows, of ``limit`` conversations at most, and of one at least whatever its size."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sections: list[dict[str, Any]] = []
        self.bytes = 0  # with those that were too many

    @property
    def full(self) -> bool:
        return len(self.sections) == self.limit or self.bytes > _MOST_BYTES

    def add(self, made: _Made) -> None:
        section = made.section()
        self.bytes += _size_of(section)
        if not self.sections or self.bytes <= _MOST_BYTES:
            self.sections.append(section)


class _Made:
    """The last sample of a conversation, or why there is none."""

    def __init__(self, conversation: Conversation, maker: SampleMaker) -> None:
        self.conversation, self.maker, self.config = conversation, maker, maker.config
        made = maker.make(conversation)
        self.problems = made.problems
        self.sample = made.samples[-1] if made.samples else None

    def section(self) -> dict[str, Any]:
        """Return what the template shows of it."""
        sample = self.sample
        common: dict[str, Any] = {
            "place": self.conversation.place,
            "split": self.conversation.split,
            "problems": [str(problem) for problem in self.problems],
            "id": sample.id if sample else self.conversation.id,
            "figures": {"id": self.conversation.id, "place": self.conversation.place, "text_tokens": 0}
            | {"memory_tokens": 0, "pages": 0, "dropped_pages": 0},
            "sheets": [],
            "notes": [],
        }
        if sample is None:
            turns = _texts(self.conversation.messages)
            heading = (
                "No sample can be made" if self.problems else "No sample: no answer with weight follows a question"
            )
            return common | {"heading": heading, "parts": [_part("The conversation", "text", turns)]}
        common["figures"] |= {
            "text_tokens": sample.text_tokens,
            "memory_tokens": sample.memory_tokens,
            "pages": len(sample.pages),
            "dropped_pages": sample.dropped_pages,
        }
        opening = [message for message in sample.prompt if message.role == "system"]
        recent = [message for message in sample.prompt if message.role != "system"]
        memory = self._memory(sample) if sample.has_memory else self._as_text(sample)
        parts = [
            _part("Stays text: the system message", "text", _texts(opening)),
            *memory.pop("parts"),
            _part(f"Stays text: {_last_turns(self.config.data.recent_turns)}", "text", _texts(recent)),
            _part("The answer it is for", "answer", _texts([Message("assistant", sample.answer)])),
        ]
        if sample.dropped_tokens:
            cut = f"{_counted(sample.dropped_tokens, 'text token')} of what stays text cut to fit model.max_seq_length"
            memory["notes"].append(f"{cut} ({self.config.model.max_seq_length:,})")
        return common | memory | {"parts": [part for part in parts if part["turns"]]}

    def _as_text(self, sample: Sample) -> dict[str, Any]:
        threshold = self.config.model.context_threshold
        heading = f"{_counted(sample.history_tokens, 'text token')} stay text"
        return {
            "heading": heading if sample.history else "No history: nothing to remember",
            "notes": [f"A history becomes pages when it has more than {threshold:,} tokens (model.context_threshold)"],
            "parts": [_part("Stays text: the history", "text", _texts(sample.history))],
        }

    def _memory(self, sample: Sample) -> dict[str, Any]:
        memory = self.maker.renderer.under_tokens(sample.history)
        count = max(1, _SHOWN_PIXELS // self.config.render.page_size**2)
        first = max(len(memory.pages) - count, 0)
        sheets = [_sheet(page, self.config, first + i, first + i + 1) for i, page in enumerate(memory.pages[first:])]
        spans = memory.spans
        on_pages = int(spans.spans[0, 0])  # the first character that is not on a dropped page
        here = spans.tokens >= first * spans.tokens_per_page
        shown = replace(spans, spans=spans.spans[here], tokens=spans.tokens[here])
        start = int(shown.spans[0, 0])
        every = len(memory.pages) * spans.tokens_per_page
        heading = f"{sample.text_tokens:,} text tokens → {_counted(sample.memory_tokens, 'memory token')}"
        notes = [
            f"{sample.compression_ratio:.2f} to 1, the two marks around memory counted",
            _counted(len(memory.pages), "page")
            + (f", the newest {len(sheets)} shown" if first else "")
            + f" of {spans.tokens_per_page:,} vision tokens",
        ]
        if self.config.model.drop_blank_tokens:
            notes.append(f"{every - sample.memory_tokens:,} of {every:,} tokens blank and left out")
        parts = []
        if sample.dropped_pages:
            lost = sample.history_tokens - sample.text_tokens
            gone = _counted(sample.dropped_pages, "oldest page")
            reason = f"render.max_pages is {self.config.render.max_pages}"
            notes.append(f"{gone} dropped ({reason}): {_counted(lost, 'text token')} that the model never sees")
            dropped = self._turns(sample, memory.text[:on_pages])
            parts.append(_part(f"Dropped with the {gone}: never seen", "dropped", dropped))
        if first:
            older = f"{_counted(first, 'older page')} of this memory, not drawn here: {start - on_pages:,} characters"
            parts.append(_part(older, "unseen", self._turns(sample, memory.text[:start], on_pages)))
        on_these = f"On {'these pages' if len(sheets) > 1 else 'this page'}"
        parts.append(_part(on_these, "memory", self._turns(sample, memory.text, start, shown)))
        return {"heading": heading, "notes": notes, "parts": parts, "sheets": sheets}

    def _turns(
        self, sample: Sample, text: str, start: int = 0, spans: TokenSpans | None = None
    ) -> list[dict[str, Any]]:
        """Return the messages of a transcript from a character on, cut into words where ``spans`` are given."""
        ends = message_ends(sample.history, self.config.render.labels)
        turns = []
        for message, begin, end in zip(sample.history, [0, *ends], ends, strict=False):
            low, high = max(begin, start), min(end, len(text))
            if low >= high:
                continue
            if spans is None:
                turns.append(_text(message.role, text[low:high]))
            else:
                words = shown_words(text, spans, low, high, self.config.render.atlas)
                turns.append(_turn(message.role, [(_safe(word), *rest) for word, *rest in words]))
        return _shortened(turns) if spans is None else turns


def _sheet(page: Page, config: RunConfig, number: int, name: int) -> dict[str, Any]:
    """Return a page for the template: picture, grid, blank tokens.

    Args:
        number: of the page in its memory, as `TokenSpans` counts.
        name: what a person calls it.
    """
    mask = page.ink_mask(config.render.token_size)
    side = page.size // config.render.token_size
    grid = "".join(f"M{i} 0V{side}M0 {i}H{side}" for i in range(1, side))
    blank = "".join(f"M{i % side} {i // side}h1v1h-1zm0 1l1-1" for i in np.flatnonzero(~mask).tolist())
    return {
        "address": png_address(page.png()),
        "size": page.size,
        "side": side,
        "first": number * len(mask),
        "name": name,
        "grid": grid,
        "blank": blank,
        "kept": "".join("1" if ink else "0" for ink in mask.tolist()),
        "inked": int(mask.sum()),
        "memory_tokens": int(mask.sum()) if config.model.drop_blank_tokens else len(mask),
    }


def _part(title: str, kind: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "kind": kind, "turns": turns}


def _texts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return _shortened([_text(message.role, message.content) for message in messages])


def _text(role: Role, text: str) -> dict[str, Any]:
    return _turn(role, [(_safe(text[:_LONGEST_TEXT]), "", False)], over=max(len(text) - _LONGEST_TEXT, 0))


def _turn(role: Role, words: list[Any], over: int = 0, before: int = 0) -> dict[str, Any]:
    """Return a message for the template, with its characters and the messages before it that are not shown."""
    return {"role": role, "words": words, "over": over, "before": before}


def _shortened(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest turns, the first of which says how many stood before it."""
    over = len(turns) - _MOST_MESSAGES
    return [turns[over] | {"before": over}, *turns[over + 1 :]] if over > 0 else turns


def _safe(text: str) -> str:
    return text.translate(_CONTROLS)


def _size_of(section: dict[str, Any]) -> int:
    """Return about how many bytes a section takes in the file: pictures, and words with their markup."""
    turns = [turn for part in section["parts"] for turn in part["turns"]]
    words = sum(len(word.encode("utf-8")) + 32 for turn in turns for word, _, _ in turn["words"])
    return words + sum(len(sheet["address"]) + len(sheet["blank"]) for sheet in section["sheets"])


def _last_turns(count: int) -> str:
    return "the last turn" if count == 1 else f"the last {count} turns"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.0f} kB"

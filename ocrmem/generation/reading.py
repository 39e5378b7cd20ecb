"""What `ask` and `chat` are given to remember: text, Markdown or conversations, from files or standard input."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from ocrmem.conversations import Message
from ocrmem.conversion.messages import is_conversation, messages_of
from ocrmem.errors import DataError
from ocrmem.families import Family
from ocrmem.generation.question import read_source
from ocrmem.rendering.page import JPEG_SIGNATURE, PNG_SIGNATURE
from ocrmem.synthetic.notes import load_phrases

if TYPE_CHECKING:
    from PIL.Image import Image

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_JSON_NAMES = (".json", ".jsonl", ".ndjson", ".jsonlines")  # which must hold conversations, or be said to be text
_PACKED = {
    b"%PDF": ("is a PDF", "Take its text out (pdftotext FILE -) or its pages (pdftoppm -png FILE page), and ask those"),
    b"PK\x03\x04": ("is a zip archive or an office document", "Unpack it, or save its text as a file of its own"),
}


def read_file(file: str | Path, family: Family) -> list[Message] | Image:
    """Return a file as messages, the last of which is the assistant's, or the picture that it is.

    A text becomes one message of the user's, as the notes that an adapter is trained on are. Conversations keep their
    messages. Names that end in .json or .jsonl must hold conversations; of any other the content decides.

    Args:
        file: UTF-8, UTF-16 with its mark, JSON, JSONL or parquet, also with gzip; PNG or JPEG; ``-`` is standard input.
        family: of the base model; it writes tool calls as text.

    Raises:
        MissingInputError: there is no such file.
        ConfigError: it cannot be read.
        DataError: it is empty, is not text, or holds conversations that cannot be read.
    """
    raw, name = read_source(
        file, "Name a file of text or conversations, or - for standard input; Memory.read takes a text itself"
    )
    if raw.startswith(_GZIP):
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError.of(name, f"is damaged gzip ({error})", "Download or pack it again") from None
    if raw.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)):
        from ocrmem.rendering.picture import open_picture  # Pillow, which texts do not need

        return open_picture(raw, name)
    if not raw.strip():
        raise DataError.of(name, "is empty", "Name a file in which something is written")
    stated = name.removesuffix(".gz").endswith(_JSON_NAMES) or raw.startswith(_PARQUET)
    if stated or is_conversation(name, io.BytesIO(raw)):
        return acknowledged(messages_of(name, io.BytesIO(raw), family))
    return notes(_decoded(raw, name), name)


def notes(text: str, place: str) -> list[Message]:
    """Return a text as the user's message, in the form of the notes that an adapter is trained on.

    Args:
        place: what errors call it.

    Raises:
        DataError: there is nothing in it.
    """
    content = text.replace("\r\n", "\n").strip()
    if not content:
        raise DataError.of(place, "is empty", "Give it a text")
    return acknowledged([Message("user", content)])


def acknowledged(messages: list[Message]) -> list[Message]:
    """Close the user's last message, so that a question behind it is a turn of its own and this one becomes memory."""
    if messages[-1].role != "user":
        return messages
    return [*messages, Message("assistant", load_phrases().acknowledgements[0], weight=0)]


def _decoded(raw: bytes, name: str) -> str:
    for signature, (message, remedy) in _PACKED.items():
        if raw.startswith(signature):
            raise DataError.of(name, message, remedy)
    try:
        text = raw.decode("utf-16" if raw.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if b"\0" in raw:
            raise DataError.of(name, "is binary, not text", "Name a file of text or conversations") from None
        message = f"is not UTF-8 (byte 0x{raw[error.start]:02x})"
        remedy = "Convert it, for example: iconv -f LATIN1 -t UTF-8 FILE | ocrmem ask - --question ..."
        raise DataError.of(f"{name}:{line}", message, remedy) from None
    if "\0" in text:
        raise DataError.of(name, "is binary, not text", "Name a file of text or conversations")
    return text

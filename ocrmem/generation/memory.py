"""Memory: texts and conversations read once, as pages, and asked about as often as one likes.

    memory = ocrmem.Memory.load("english").read(text)
    print(memory.ask("Who has the key to the boathouse?").text)

What is read is in the form of the conversations that adapters are trained on: a text is a message of the user's that
the assistant acknowledges, the question is the last message, and all before it is on pages, however short.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ocrmem.arguments import require, require_config
from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, Message
from ocrmem.conversations.content import ContentFault, require_utf8
from ocrmem.dataset.samples import Made
from ocrmem.dataset.schema import Sample
from ocrmem.errors import ConfigError, DataError
from ocrmem.evaluation.baselines import CaseMaker
from ocrmem.families import with_marks
from ocrmem.generation.chat_session import ChatSession
from ocrmem.generation.question import asking
from ocrmem.generation.reading import notes
from ocrmem.rendering import Page

if TYPE_CHECKING:
    from PIL.Image import Image

    from ocrmem.rendering.picture import Picture


@dataclass(frozen=True)
class Compared:
    """An answer from something else than memory.

    Attributes:
        text: the answer.
        tokens: that stood in front of the question in place of memory.
        dropped_tokens: of the text, for which there was no room.
    """

    text: str
    tokens: int
    dropped_tokens: int


@dataclass(frozen=True)
class MemoryAnswer:
    """An answer, and what it was read from.

    Attributes:
        question: as it was asked.
        text: the answer.
        text_tokens: of the language model's, in what is on the pages.
        memory_tokens: in place of these: vision tokens and two marks.
        pages: that they are on.
        encoded_pages: those that went through the encoder for this question.
        warnings: what makes the answer doubtful.
        compared: with ``compare``, the answers from the full text, from its end in as many tokens as memory has
            (truncated), and from nothing (no_memory).
    """

    question: str
    text: str
    text_tokens: int
    memory_tokens: int
    pages: int
    encoded_pages: int
    warnings: list[str]
    compared: dict[str, Compared] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """What became of the text, for a person."""
        return told(self.text_tokens, self.memory_tokens, self.pages)


class Memory:
    """What was read, and a session that answers from it. Pages are encoded once, and memory is read once.

    Raises:
        ConfigError: ``session`` is something else.

    Args:
        session: made with a ``context_threshold`` of 0, so that short texts become memory too.
    """

    def __init__(self, session: ChatSession) -> None:
        remedy = "Load an adapter by its name: ocrmem.Memory.load(...)"
        require(ChatSession, session, "Memory", "a ChatSession", remedy)
        self.session = session
        self.messages: list[Message] = []
        self.pictures: list[Page] = []

    @classmethod
    def load(cls, adapter: str | Path | None = None, *, config: RunConfig | None = None) -> Self:
        """Load an adapter with its models.

        Args:
            adapter: a name in the box, a directory or ``models:/NAME@ALIAS``; None: "english", or ``paths.adapter`` of
                a ``config``.
            config: the settings of a run; None: the adapter's own.

        Raises:
            ConfigError, ModelError: as `ChatSession.open`.
        """
        if config is not None:
            require_config("Memory.load", config)
        return cls(ChatSession.open(config, adapter, context_threshold=0))

    def read(self, text: str) -> Self:
        """Remember a text, behind what was read before; return this memory.

        Raises:
            ConfigError: it is not a string.
            DataError: it is empty.
        """
        require(str, text, "Memory.read", "a string", "Give the text itself, such as pathlib.Path(file).read_text()")
        self.messages += notes(_valid(text, "Memory.read"), "Memory.read")
        return self

    def read_picture(self, source: str | Path | Image) -> Self:
        """Remember a scanned page, before all text; return this memory. A message with its name stands for it.

        Args:
            source: a PNG or JPEG file, or a PIL image.

        Raises:
            MissingInputError, ConfigError, DataError: as `ocrmem.rendering.picture.read_picture`.
        """
        from ocrmem.rendering.picture import read_picture  # Pillow, which texts do not need

        return self.keep(read_picture(source, self.page_size))

    def keep(self, picture: Picture) -> Self:
        """Remember a picture of `page_size`; return this memory."""
        name = _valid(f"[{Path(picture.name).name}]", picture.name)
        self.messages += notes(name, picture.name)
        self.pictures.append(picture.page)
        return self

    @property
    def page_size(self) -> int:
        """Side in px of the pages that the adapter was trained on."""
        return self.session.maker.config.render.page_size

    def ask(self, question: str, *, compare: bool = False) -> MemoryAnswer:
        """Answer a question from memory, which stays as it is.

        Args:
            question: one message of the user's.
            compare: also answer in the ways of `MemoryAnswer.compared`.

        Raises:
            ConfigError: nothing was read, or the question is not a string.
            DataError: the question is empty, or memory and question are too long.
        """
        if not self.messages:
            raise ConfigError.of("Memory.ask", "has nothing to answer from", "Call read(text) first")
        return self._answer(question, compare)

    def say(self, message: str) -> MemoryAnswer:
        """Answer a message of a conversation, and remember it and the answer.

        Raises:
            ConfigError, DataError: as `ask`, which wants something to be read first; this does not.
        """
        answer = self._answer(message)
        # An empty answer could not be said again, and would be no message.
        said = Message("assistant", answer.text or "...")
        self.messages += [Message("user", message), said]
        return answer

    def conversation(self) -> list[Message]:
        """Return what the next question stands behind: all messages, with the adapter's usual system message in front
        if none was read."""
        system = self.session.model.config.system
        if system is None or (self.messages and self.messages[0].role == "system"):
            return list(self.messages)
        return [Message("system", system), *self.messages]

    def told(self) -> str:
        """Say what the next question is answered from; nothing is encoded."""
        sample = self._made().samples[-1]
        return told(sample.text_tokens, with_marks(sample.memory_tokens), len(sample.pages))

    def pages(self) -> list[Page]:
        """Return the pages that the next question is answered from."""
        return [Page.from_bytes(row.bits, row.size, row.atlas_version) for row in self._made().pages]

    def _answer(self, question: str, compare: bool = False) -> MemoryAnswer:
        prepared = self.session.prepare(self._asked(question), self.pictures)
        answer, sample = self.session.answer_prepared(prepared), prepared.sample
        warnings = list(answer["warnings"])
        if lost := answer["dropped_tokens"]:
            warnings.append(f"{lost:,} tokens of the question did not fit behind the memory and were left out")
        return MemoryAnswer(
            question=question,
            text=answer["answer"].strip(),
            text_tokens=sample.text_tokens,
            memory_tokens=answer["memory_tokens"],
            pages=answer["pages"],
            encoded_pages=answer["encoded_pages"],
            warnings=warnings,
            compared=self._compared(sample) if compare else {},
        )

    def _compared(self, sample: Sample) -> dict[str, Compared]:
        scorer = self.session.scorer
        positions = scorer.model.base_llm_model.config.get_text_config().max_position_embeddings
        maker = CaseMaker(self.session.maker.builder, positions - scorer.max_new_tokens)
        bare = maker.without_memory(sample)
        cases = {"full_text": maker.full_text(sample), "truncated": maker.truncated(sample), "no_memory": bare}
        return {
            name: Compared(
                text=scorer.answers([case])[0].strip(),
                tokens=len(case.question.input_ids) - len(bare.question.input_ids),
                dropped_tokens=case.question.dropped_tokens,
            )
            for name, case in cases.items()
        }

    def _asked(self, question: str) -> Conversation:
        return asking("memory", [*self.conversation(), Message("user", as_question(question))], "question")

    def _made(self) -> Made:
        """Draw what the next question is answered from."""
        made = self.session.maker.make(self._asked("?"), self.pictures)
        if made.problems:
            raise DataError(made.problems)
        return made


def as_question(question: str) -> str:
    """Return a question as it is, if it can be asked.

    Raises:
        ConfigError: it is not a string.
        DataError: it is empty, or not valid text.
    """
    require(str, question, "question", "a string", "Ask in words")
    if not question.strip():
        raise DataError.of("question", "is empty", "Ask something")
    return _valid(question, "question")


def told(text_tokens: int, memory_tokens: int, pages: int) -> str:
    """Say what became of a text."""
    if not memory_tokens:
        return "Nothing is in memory yet."
    where = f"{pages:,} {'page' if pages == 1 else 'pages'}"
    ratio = f"{text_tokens / memory_tokens:.2f} text tokens per memory token"
    return f"{text_tokens:,} text tokens became {memory_tokens:,} memory tokens on {where}: {ratio}."


def _valid(text: str, place: str) -> str:
    try:
        require_utf8(text)
    except ContentFault as fault:
        raise DataError.of(place, fault.message, fault.remedy) from None
    return text

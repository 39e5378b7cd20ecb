"""The repository's own conversations as samples and pages, without any file in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, scan_conversations
from ocrmem.dataset.making import SampleMaker
from ocrmem.dataset.schema import Sample
from ocrmem.render import Page
from ocrmem.synthetic.tokenizer import (
    CHAT_TEMPLATE,
    MEMORY_END,
    MEMORY_START,
    PAD,
    PLACEHOLDER,
    TURN_END,
    TURN_START,
)

ROOT = Path(__file__).resolve().parents[2]
TINY, CHAT = ROOT / "samples" / "conversations", ROOT / "samples" / "chat"


@dataclass(frozen=True)
class Inputs:
    """Samples of the split ``train`` and the pages they name.

    Attributes:
        maker: made them; its builder makes their token sequences.
        pages: by hash.
    """

    maker: SampleMaker
    samples: list[Sample]
    pages: dict[str, Page]

    @classmethod
    def of(cls, config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Inputs:
        """Samples of the conversations of ``config.data.path``, as `ocrmem render` makes them."""
        maker = SampleMaker(config, tokenizer)
        samples: list[Sample] = []
        pages: dict[str, Page] = {}
        for conversation in conversations(Path(config.data.path)):
            made = maker.make(conversation)
            if made.problems:
                raise SystemExit("\n".join(map(str, made.problems)))
            samples += made.samples
            pages |= {row.hash: Page.from_bytes(row.bits, row.size, row.atlas_version) for row in made.pages}
        return cls(maker, samples, pages)


def conversations(path: Path) -> list[Conversation]:
    """The training conversations of a directory."""
    return [found for found in scan_conversations(path, 0.1).conversations if found.split == "train"]


def tiny_config(path: Path = TINY) -> RunConfig:
    """params.yaml: the tiny preset."""
    return RunConfig.load(ROOT / "params.yaml", [f"data.path={path}"])


@cache
def chat_tokenizer(tokens: int = 8000) -> PreTrainedTokenizerFast:
    """A byte-level BPE of about ``tokens`` tokens, learnt from samples/chat: no tokenizer is downloaded.

    English and Chinese text come out at about the characters a token of a real vocabulary.
    """
    return _bpe((message.content for found in conversations(CHAT) for message in found.messages), tokens)


def _bpe(texts: Iterable[str], tokens: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tokens, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START, TURN_END, MEMORY_START, MEMORY_END, PLACEHOLDER],
        chat_template=CHAT_TEMPLATE,
    )

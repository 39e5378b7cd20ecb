"""What is measured on: the repository's own conversations, and drawn ones of any number."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, ConversationReader
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.schema import Sample
from ocrmem.rendering import Page
from ocrmem.synthetic.tiny import tiny_conversations
from ocrmem.synthetic.tokenizer import (
    CHAT_TEMPLATE,
    MARKS,
    PAD,
    TURN_END,
    TURN_START,
)

ROOT = Path(__file__).resolve().parents[2]
TINY, CHAT = ROOT / "samples" / "conversations", ROOT / "samples" / "chat"
GROWN_TURNS = 10  # samples of a conversation that `write_grown` writes


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
    return [found for found, _, _ in ConversationReader(path, 0.1).read() if found.split == "train"]


def tiny_config(path: Path = TINY) -> RunConfig:
    """params.yaml: the tiny preset."""
    return RunConfig.load(ROOT / "params.yaml", [f"data.path={path}"])


def grown_config(root: Path) -> RunConfig:
    """Settings under ``root``: the tiny preset's tokenizer and pages, one process."""
    paths = {name: str(root / name) for name in ("dataset", "checks", "features", "models")}
    return RunConfig.from_dict(
        {
            "model": {
                "base_model_name": "tiny",
                "ocr_model_name": "tiny",
                "features": "concat",
                "vision_embedding_size": 128,
                "context_threshold": 8,
                "max_seq_length": 256,
            },
            "render": {"page_size": 256, "token_size": 32, "line_height": 32, "max_pages": 2},
            "data": {"path": str(root / "data"), "workers": 1},
            "check": {"min_compression_ratio": 0.0, "max_compression_ratio": 1000.0},
            "paths": paths,
        }
    )


def write_grown(root: Path, samples: int) -> None:
    """Conversations of `GROWN_TURNS` samples each, in the words of the tiny preset."""
    words = sorted({word for c in tiny_conversations(50, 0) for m in c["messages"] for word in m["content"].split()})
    generator = random.Random(0)
    (root / "data").mkdir(parents=True)
    with (root / "data" / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(samples // GROWN_TURNS):
            messages: list[dict[str, Any]] = []
            for turn in range(GROWN_TURNS + 1):
                messages.append({"role": "user", "content": " ".join(generator.choices(words, k=5))})
                messages.append({"role": "assistant", "content": " ".join(generator.choices(words, k=3))})
                if turn == 0:
                    messages[-1]["weight"] = 0  # nothing lies before it
            file.write(json.dumps({"id": f"c{number}", "messages": messages}) + "\n")


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
        additional_special_tokens=[TURN_START, TURN_END, MARKS.start, MARKS.end, MARKS.placeholder],
        chat_template=CHAT_TEMPLATE,
    )

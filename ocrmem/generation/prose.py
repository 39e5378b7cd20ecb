"""The verb ``prose``: the base model writes texts of its own, for training to read them from pages.

No corpus has to be shipped or fetched, and the texts are of the kinds, the lengths and the words that are asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import torch
from transformers import LogitsProcessorList

from ocrmem.config import RunConfig
from ocrmem.console import progress_bar
from ocrmem.conversations import Message
from ocrmem.dataset.sequence import SequenceBuilder, TokenSequence
from ocrmem.encoder.device import DTYPES, pick_device
from ocrmem.facts import IGNORED
from ocrmem.files import locked
from ocrmem.model.collator import pad_sequences
from ocrmem.model.frozen_parts import load_base
from ocrmem.model_places import locate
from ocrmem.synthetic.output import write_conversations
from ocrmem.synthetic.prose import Request, Written, prose_conversations

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TEMPERATURE = 0.9
_LIKELIEST = 50  # tokens that are drawn from
_TOKENS_OF_A_WORD = 1.5  # of English with numbers and codes in it, at most


class ProseResult(TypedDict):
    """Number of conversations and characters, and the file."""

    conversations: int
    characters: int
    seed: int
    file: str
    summary: list[str]


def prose(config: RunConfig, output: Path, *, count: int = 1000, seed: int = 0, words: int = 120) -> ProseResult:
    """Let the base model write texts, and write conversations about them to prose-SEED.jsonl, for training.

    The same seed gives the same texts on one machine; another processor may round, and so choose, differently.

    Args:
        config: names the base model; ``model.precision`` and ``model.device`` say how it runs.
        output: folder; other files in it stay, those of other seeds too.
        count: texts.
        seed: of what is asked for and of the sampling.
        words: of a text, about.

    Raises:
        ConfigError: the folder cannot be written.
        MissingInputError: the tiny preset has not been built.
        ModelError: the base model does not load, or hardly anything that it writes can be used.
    """
    names = config.model
    location = locate(names.base_model_name, config.paths.models, "base", names.base_revision)
    dtype, device = DTYPES[names.precision], pick_device(names.device)
    base = load_base(location, revision=names.base_revision, dtype=dtype, device=device)
    writer = Writer(base.eval(), SequenceBuilder.of(config))
    path = Path(output) / f"prose-{seed}.jsonl"
    with locked(output, "prose"), progress_bar("writing prose", count) as bar:
        written = write_conversations(path, prose_conversations(count, seed, words, writer), bar)
    characters = sum(len(conversation["messages"][1]["content"]) for conversation in written)
    return {
        "conversations": count,
        "characters": characters,
        "seed": seed,
        "file": str(path),
        "summary": [f"{path}: {count:,} texts of {characters:,} characters by {names.base_model_name}"],
    }


class Writer:
    """Samples a chat model's answers, many at once.

    Args:
        model: in eval mode.
        builder: of its sequences.
    """

    def __init__(self, model: PreTrainedModel, builder: SequenceBuilder) -> None:
        self.model, self.builder = model, builder

    @torch.inference_mode()
    def __call__(self, requests: Sequence[Request], words: int, seed: str) -> list[Written]:
        """Write the texts of ``requests``, about ``words`` words each."""
        starts = [request.start.rstrip(" ") for request in requests]  # tokens bring the space before their word
        opened = [self._opened(request.prompt, start) for request, start in zip(requests, starts, strict=True)]
        end, decode = self.builder.end_token_id, self.builder.tokenizer.decode
        batch = pad_sequences(opened, end, left=True)
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(seed.encode()))
            written = cast(Any, self.model).generate(
                batch["input_ids"].to(self.model.device),
                attention_mask=batch["attention_mask"].to(self.model.device),
                do_sample=False,  # _draw does
                logits_processor=LogitsProcessorList([_draw]),
                max_new_tokens=int(words * _TOKENS_OF_A_WORD),
                eos_token_id=end,
                pad_token_id=end,
            )
        texts = []
        for start, ids in zip(starts, written[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            said = ids[: ids.index(end)] if end in ids else ids
            texts.append(Written(start + str(decode(said, skip_special_tokens=True)), len(said) < len(ids)))
        return texts

    def _opened(self, prompt: str, start: str) -> TokenSequence:
        """Build the sequence that ends within the answer, behind its start."""
        ids = [*self.builder.build([Message("user", prompt)], None).input_ids, *self.builder.encode_content(start)]
        return TokenSequence(ids, [IGNORED] * len(ids), memory_tokens=0, dropped_tokens=0)


def _draw(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Choose a token for each row, among its likeliest: its logit becomes the greatest.

    What `generate` does for this draws a random number for every word of the vocabulary, a fifth of a step on a CPU.

    Args:
        logits: [batch, vocabulary].
    """
    likeliest, ids = logits.topk(_LIKELIEST)
    noise = (
        torch.empty_like(likeliest).exponential_().log()
    )  # its negative is Gumbel noise, which makes argmax a sample
    drawn = (likeliest / _TEMPERATURE - noise).argmax(-1, keepdim=True)
    return logits.scatter(-1, ids.gather(-1, drawn), torch.inf)

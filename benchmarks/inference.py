"""Time to the first token and memory, by memory pages and by full text; and what a new turn of a chat costs.

    python benchmarks/inference.py [--quick] [--target 10]

Two tables, both with random weights, in processor seconds of one thread.

1. A history of 1k to 32k text tokens (English prose of this project's own), then a question. Full text is read by
   the language model as it stands; memory is drawn on pages of 1024 px, encoded and read by the same language model.
   Both models have the tiny preset's widths, with a vocabulary of 8,000, Qwen3's 40,960 positions and DeepSeek-OCR's
   tokens of 64 px. "First token" is everything from the text to the first token of the answer, tokenising, drawing and
   encoding included. Memory is the most that tensors take together, weights not counted. Where memory begins to win
   depends on the two models: the last columns give the arithmetic of Qwen3-8B with DeepSeek-OCR's encoder, in
   operations, which needs no machine. Up to 4k tokens the best of five runs counts, since they take milliseconds.
2. A chat of 64 pages of 512 px in a `ChatSession` with the medium encoder (15 M parameters): preparing the question
   again, everything drawn and encoded, against the next turn in the same session.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from common.inputs import chat_tokenizer, tiny_config
from common.memory import PeakTensors, mb
from common.models import medium_encoder, parameters, tiny_encoder, tiny_qwen
from torch.utils.flop_counter import FlopCounterMode

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, Message
from ocrmem.encoder.architecture import deepseek_ocr_config
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.families import DEFAULT
from ocrmem.generation.chat_session import ChatSession, FeatureCache
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel

SENTENCES = (
    "The ferry left late that morning because the fog had not lifted from the harbour.",
    "Nobody on deck seemed to mind; they leaned on the rail and listened to the bell.",
    "She had packed in a hurry and only now remembered the letter on the kitchen table.",
    "It is difficult to explain to someone from the city how dark an island can be at night.",
    "He wrote the figures in a small blue notebook: 14 crates, 3 of them damaged, none missing.",
    "In spring the road washes out, and the post comes on foot, when it comes.",
    "Later they would disagree about who had seen the light first, and how long it had lasted.",
)
POSITIONS = 40_960  # of Qwen3
CHAT_PAGES = 64


def session(encoder: DeepEncoder, page_size: int, max_pages: int, *, context_threshold: int = 64) -> ChatSession:
    """A session on this encoder and the tiny language model, with nothing loaded from disk."""
    tokenizer = chat_tokenizer()
    config = settings(page_size, max_pages, context_threshold)
    adapter = MEMConfig.from_run_config(
        config, placeholder_token_id=tokenizer.convert_tokens_to_ids(DEFAULT.marks.placeholder)
    )
    adapter.ocr_model_name, adapter.vision_embedding_size = "benchmark", encoder.feature_size
    model = MEMModel(adapter, tiny_qwen(len(tokenizer), POSITIONS), encoder).eval()
    return ChatSession(model, tokenizer, config)


def settings(page_size: int, max_pages: int, context_threshold: int) -> RunConfig:
    config = tiny_config()
    model = config.model.model_copy(
        update={"context_threshold": context_threshold, "max_seq_length": POSITIONS, "device": "cpu"}
    )
    sizes = {"page_size": page_size, "token_size": 64, "line_height": 16, "max_pages": max_pages}
    labels = config.render.labels.model_copy(update={"user": "user: ", "assistant": "assistant: "})
    render = config.render.model_copy(update=sizes | {"labels": labels})
    evaluate = config.evaluate.model_copy(update={"max_new_tokens": 1})
    return config.model_copy(update={"model": model, "render": render, "evaluate": evaluate})


def history(characters: int) -> list[Message]:
    """Prose in turns of some 2,000 characters; the last one is an answer, so that all of it is history."""
    chosen, texts, total = random.Random(0), list[str](), 0
    while total < characters:
        texts.append(" ".join(chosen.choices(SENTENCES, k=25))[: characters - total])
        total += len(texts[-1])
    return [Message(("assistant", "user")[(len(texts) - place) % 2], text, 0) for place, text in enumerate(texts, 1)]


def asking(messages: list[Message]) -> Conversation:
    """The conversation with a question at its end, closed as `read_question` closes one."""
    question = [Message("user", "What was in the notebook?"), Message("assistant", "?")]
    return Conversation("benchmark", (*messages, *question), "eval", "benchmark")


@dataclass(frozen=True)
class Cost:
    """Of one way to a first token: processor seconds by step, sequence length, bytes of tensors."""

    seconds: dict[str, float]
    tokens: int
    peak: int

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Watch:
    """Processor seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, step: str, work: Callable[[], object]) -> object:
        start = time.process_time()
        result = work()
        self.seconds[step] = time.process_time() - start
        return result


def by_memory(chat: ChatSession, asked: Conversation) -> Cost:
    """Draw, encode, read."""
    watch = Watch()
    chat.features = FeatureCache(chat.features.encoder, chat.features.most)
    with PeakTensors() as memory:
        encoding = time_in(chat.features.encoder)
        prepared = watch.time("prepare", lambda: chat.prepare(asked))
        watch.seconds["encode"] = encoding()
        watch.seconds["prepare"] -= watch.seconds["encode"]
        watch.time("read", lambda: chat.scorer.write(prepared.case, 1))
    return Cost(watch.seconds, len(prepared.case.question.input_ids), memory.peak)


def by_text(chat: ChatSession, asked: Conversation) -> Cost:
    """The same session with a threshold that no history reaches: the history stays text."""
    watch = Watch()
    with PeakTensors() as memory:
        prepared = watch.time("prepare", lambda: chat.prepare(asked))
        watch.time("read", lambda: chat.scorer.write(prepared.case, 1))
    return Cost(watch.seconds, len(prepared.case.question.input_ids), memory.peak)


def time_in(encoder: torch.nn.Module) -> Callable[[], float]:
    """Count the processor seconds in the encoder's forward; the result says how many, and stops counting."""
    seconds, started = [0.0], [0.0]

    def begin(*_: object) -> None:
        started[0] = time.process_time()

    def end(*_: object) -> None:
        seconds[0] += time.process_time() - started[0]

    hooks = [encoder.register_forward_pre_hook(begin), encoder.register_forward_hook(end)]

    def stop() -> float:
        for hook in hooks:
            hook.remove()
        return seconds[0]

    return stop


def encoder_operations() -> float:
    """Operations of DeepSeek-OCR's encoder for one page of 1024 px, counted on the meta device."""
    with torch.device("meta"):
        encoder = DeepEncoder(deepseek_ocr_config(), "sum")
        page = torch.empty(1, 3, 1024, 1024)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(page)
    return float(counter.get_total_flops())


def reading_operations(tokens: int) -> float:
    """Operations of Qwen3-8B reading so many tokens: 2 a weight, and half of the causal square of attention."""
    layers, heads, weights = 36, 32 * 128, 6.95e9  # without embeddings and head
    return 2 * weights * tokens + 4 * layers * heads * tokens * tokens / 2


def first_token(quick: bool) -> dict[str, object]:
    """Table 1."""
    encoder = tiny_encoder(1024, 64)
    memory_chat = session(encoder, 1024, 64)
    text_chat = session(encoder, 1024, 64, context_threshold=POSITIONS - 1)
    page = encoder_operations()
    print(
        f"First token: language model {parameters(memory_chat.model.base_llm_model)}, encoder "
        f"{parameters(memory_chat.model.ocr_embed)}; full-size encoder: {page / 1e12:.2f} T operations a page"
    )
    print(
        f"{'text tokens':>12}{'memory':>8}{'pages':>7}{'text s':>9}{'draw s':>8}{'encode s':>9}{'read s':>8}"
        f"{'memory s':>9}{'times':>7}{'text MB':>9}{'mem. MB':>9}{'8B: T op':>10}{'memory':>8}{'times':>7}"
    )
    rows = []
    by_memory(memory_chat, asking(history(2_000)))
    by_text(text_chat, asking(history(2_000)))
    for thousands in (1, 2, 4, 8, 16) if quick else (1, 2, 4, 8, 16, 32):
        asked = asking(history(round(thousands * 1024 * characters_per_token())))
        found = [(by_text(text_chat, asked), by_memory(memory_chat, asked)) for _ in range(5 if thousands <= 4 else 1)]
        text, memory = (min(costs, key=lambda cost: cost.total) for costs in zip(*found, strict=True))
        pages = len(memory_chat.prepare(asked).sample.pages)
        real = (reading_operations(text.tokens), reading_operations(memory.tokens) + pages * page)
        rows.append(
            {
                "text_tokens": text.tokens,
                "memory_tokens": memory.tokens,
                "pages": pages,
                "text_seconds": round(text.total, 2),
                "memory_seconds": {name: round(value, 3) for name, value in memory.seconds.items()},
                "times": round(text.total / memory.total, 2),
                "text_bytes": text.peak,
                "memory_bytes": memory.peak,
                "qwen3_8b_times": round(real[0] / real[1], 2),
            }
        )
        print(
            f"{text.tokens:12}{memory.tokens:8}{pages:7}{text.total:9.2f}{memory.seconds['prepare']:8.2f}"
            f"{memory.seconds['encode']:9.2f}{memory.seconds['read']:8.2f}{memory.total:9.2f}"
            f"{text.total / memory.total:7.2f}{mb(text.peak):>9}{mb(memory.peak):>9}"
            f"{real[0] / 1e12:10.0f}{real[1] / 1e12:8.0f}{real[0] / real[1]:7.1f}",
            flush=True,
        )
    even = crossover([(row["text_tokens"], row["times"]) for row in rows])
    print(f"memory is as fast as full text at {even}")
    return {"rows": rows, "crossover": even}


def characters_per_token() -> float:
    """Of the tokenizer here on this prose."""
    text = " ".join(SENTENCES)
    return len(text) / len(chat_tokenizer()(text)["input_ids"])


def crossover(rows: list[tuple[int, float]]) -> str:
    """Where the ratio of times passes 1, by linear interpolation between two lengths."""
    if rows[0][1] >= 1:
        return f"less than {rows[0][0]} tokens"
    for (below, low), (above, high) in itertools.pairwise(rows):
        if low < 1 <= high:
            return f"about {below + (above - below) * (1 - low) / (high - low):.0f} tokens"
    return f"more than {rows[-1][0]} tokens"


def next_turn(quick: bool, target: float) -> dict[str, object]:
    """Table 2."""
    pages = 16 if quick else CHAT_PAGES
    chat = session(medium_encoder(512, 64), 512, pages + 8)
    rows_a_page, columns = 32, 64
    line = (columns - len("assistant: ")) // 2
    messages = [
        Message(("user", "assistant")[number % 2], f"{number:05d} " + "the post comes on foot "[:line], 0)
        for number in range(pages * rows_a_page - 20)
    ]
    chat.prepare(asking(messages[:4]))  # warms up
    anew: list[dict[str, float]] = []
    for _ in range(1 if quick else 2):
        chat.features = FeatureCache(chat.features.encoder, chat.features.most)
        chat.prepare(asking(messages[1:5]))  # another text: nothing of the pages drawn before is left
        anew.append(prepared_in(chat, asking(messages)))
    turns = []
    for count in range(2, 18, 2):
        added = [Message(("user", "assistant")[n % 2], f"{n} and then it was nothing at all", 0) for n in range(count)]
        turns.append(prepared_in(chat, asking([*messages, *added])))
    print(f"\nA chat of {pages} pages of 512 px: one more question")
    print(f"{'':22}{'pages encoded':>14}{'encode s':>10}{'all else s':>12}{'together s':>12}")
    for name, found in (("everything again", anew), ("the next turn", turns)):
        middle = {key: statistics.median(row[key] for row in found) for key in found[0]}
        print(
            f"{name:22}{middle['pages']:14.0f}{middle['encode']:10.3f}{middle['rest']:12.3f}"
            f"{middle['encode'] + middle['rest']:12.3f}"
        )
    ratio = together(anew) / together(turns)
    rest = statistics.median(row["rest"] for row in anew) / statistics.median(row["rest"] for row in turns)
    print(f"a turn costs 1/{ratio:.0f} of everything again; without the encoder 1/{rest:.1f}")
    return {"pages": pages, "anew": anew, "turns": turns, "ratio": round(ratio, 1), "target_met": ratio >= target}


def together(found: list[dict[str, float]]) -> float:
    return statistics.median(row["encode"] + row["rest"] for row in found)


def prepared_in(chat: ChatSession, asked: Conversation) -> dict[str, float]:
    """Processor seconds in the encoder and in all else of preparing a question, and the pages encoded."""
    encoding, start = time_in(chat.features.encoder), time.process_time()
    prepared = chat.prepare(asked)
    total, encode = time.process_time() - start, encoding()
    return {"pages": prepared.encoded_pages, "encode": encode, "rest": total - encode}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 16k tokens, a chat of 16 pages")
    parser.add_argument("--target", type=float, default=10.0, help="times that a turn must be cheaper, else exit 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = {"first_token": first_token(arguments.quick), "next_turn": next_turn(arguments.quick, arguments.target)}
    print(json.dumps(tables))
    if not tables["next_turn"]["target_met"]:
        print(f"A turn of 1/{arguments.target:g} of everything again was not shown.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`render --preview`: a page in which words lead to vision tokens, exactly, and text stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.chat import conversation, write_jsonl
from support.models import small_settings

from ocrmem.cli import main
from ocrmem.config import RenderSection
from ocrmem.conversations import Message
from ocrmem.dataset import preview
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.preview import preview_dataset, preview_pictures
from ocrmem.dataset.preview_words import shown_words
from ocrmem.rendering import load_atlas, token_spans
from ocrmem.rendering.history import HistoryRenderer

HOSTILE = "</i></div><script>alert(1)</script><img src=x onerror=alert(2)> &amp; {{ 7 * 7 }} \x00\x1b[31m \u202etxet"


class Parsed(HTMLParser):
    """What a browser makes of the page, as far as the tests ask."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[tuple[str, str]] = []  # class and text of each
        self.links: list[tuple[str, str]] = []  # text and tokens of each linked piece
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if (values.get("class") or "").startswith("part "):
            self.parts.append((str(values["class"])[5:], ""))
        self._open.append(tag)
        if tag == "i":
            self.links.append(("", str(values["data-t"])))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.parts and "figure" not in self._open and "output" not in self._open:
            kind, text = self.parts[-1]
            self.parts[-1] = kind, text + data
        if self._open and self._open[-1] == "i":
            text, tokens = self.links[-1]
            self.links[-1] = text + data, tokens

    def text(self, kind: str) -> str:
        return "".join(text for part, text in self.parts if part == kind)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [values for tag, values in self.tags if tag == name]


def opened(result: dict[str, Any]) -> Parsed:
    html = Path(result["preview"]).read_text(encoding="utf-8")
    assert len(html.encode("utf-8")) == result["bytes"]
    return Parsed(html)


@pytest.fixture
def make(make_config, tmp_path):
    """The preview of some rows of data, in a directory of its own."""

    def preview_of(rows: list[dict[str, Any]], limit: int = 4, **sections: dict) -> tuple[Any, Parsed, Any]:
        write_jsonl(tmp_path / "data" / "train.jsonl", rows)
        config = make_config(**sections)
        result = preview_dataset(config, limit, tmp_path / "preview")
        return result, opened(result), config

    return preview_of


def test_the_figures_are_those_of_the_dataset_that_render_writes(make):
    result, page, config = make([conversation("a", 5), conversation("b", 4)], render={"max_pages": 1})
    build_dataset(config)
    samples = list(MemoryDataset.open(config.paths.dataset).samples("train"))
    last = {sample.conversation_id: sample for sample in samples}
    assert [one["id"] for one in result["conversations"]] == ["a", "b"]
    for one in result["conversations"]:
        sample = last[one["id"]]
        assert (one["text_tokens"], one["memory_tokens"]) == (sample.text_tokens, sample.memory_tokens)
        assert (one["pages"], one["dropped_pages"]) == (len(sample.pages), sample.dropped_pages)
        heading = f"{sample.text_tokens:,} text tokens → {sample.memory_tokens} memory tokens"
        assert any(line.endswith(heading) for line in result["summary"])
        assert heading in Path(result["preview"]).read_text(encoding="utf-8")
    kept = [str(sheet["data-kept"]) for sheet in page.all("div") if sheet.get("class") == "sheet"]
    assert [mask.count("1") for mask in kept] == [one["memory_tokens"] for one in result["conversations"]]


def test_what_is_on_pages_what_stays_text_and_what_is_dropped_are_told_apart(make):
    row = conversation("a", 6)
    _, page, _ = make([row], render={"max_pages": 1})
    contents = [message["content"] for message in row["messages"]]
    assert contents[0] in page.text("text")  # the system message
    assert contents[-2] in page.text("text")  # the last question
    assert contents[-1] in page.text("answer")
    assert contents[-3] in page.text("memory")
    assert contents[1] in page.text("dropped")
    assert "never seen" in page.text("dropped")
    assert "Dropped" not in make([row], render={"max_pages": 20})[1].text("dropped")


def test_text_of_others_stays_text(make):
    row = conversation(HOSTILE.partition(" \x00")[0], 4)
    row["messages"][0]["content"] = row["messages"][2]["content"] = row["messages"][-1]["content"] = HOSTILE
    result, page, _ = make([row])
    assert len(page.all("script")) == 1
    assert {tag for tag, _ in page.tags if tag == "img"} == {"img"}
    assert all(str(img["src"]).startswith("data:image/png;base64,") for img in page.all("img"))
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    shown = HOSTILE.replace("\x00", "\u2400").replace("\x1b", "\u241b")
    assert all(shown in page.text(kind) for kind in ("text", "memory", "answer"))
    assert "\x00" not in Path(result["preview"]).read_text(encoding="utf-8")


def test_the_file_asks_for_nothing_and_its_policy_lets_its_own_script_alone_run(make):
    result, page, _ = make([conversation("a", 4)])
    html = Path(result["preview"]).read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|\bsrc=\"(?!data:)", html)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    code = re.search(r"<script>(.*)</script>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


@pytest.mark.parametrize("align", ["none", "token"])
@pytest.mark.parametrize("newlines", ["break", "flow"])
def test_a_word_names_the_tokens_over_its_letters_and_no_other(align, newlines):
    settings = RenderSection(page_size=256, token_size=32, line_height=16, align=align, newlines=newlines)
    text = "user: plain words, 中文混排 𠀀\x01 and averyveryverylongwordthatiscutsomewhere\n\n\tend  of it\n" * 9
    spans = token_spans(text, settings, load_atlas(settings.atlas))
    over: list[set[int]] = [set() for _ in text]
    for (start, stop), token in zip(spans.spans.tolist(), spans.tokens.tolist(), strict=True):
        for place in range(start, stop):
            over[place].add(token)
    place = 3  # within a word
    pieces = list(shown_words(text, spans, place, len(text) - 2, settings.atlas))
    assert "".join(word for word, _, _ in pieces) == text[3:-2]
    assert not pieces[0][2]
    for word, tokens, _ in pieces:
        named = {int(token) for token in tokens.split()}
        assert all(over[place + i] == named for i in range(len(word))) or (not word.strip() and not named)
        place += len(word)
    words = re.split("\0+", "".join(("" if more else "\0") + word for word, tokens, more in pieces if tokens))
    assert {"plain", "words,", "中", "averyveryverylongwordthatiscutsomewhere", "end"} <= set(words)


def test_the_linked_pieces_name_tokens_of_the_pages_shown(make, monkeypatch):
    monkeypatch.setattr(preview, "_SHOWN_PIXELS", 2 * 512**2)
    row = conversation("a", 12)
    _, page, config = make([row])
    history = [Message(one["role"], one["content"]) for one in row["messages"][1:-2]]
    memory = HistoryRenderer(config.render).under_tokens(history)
    assert len(memory.pages) > 2
    sheets = [values for values in page.all("div") if values.get("class") == "sheet"]
    assert len(sheets) == 2
    first = {int(str(sheet["data-first"])) for sheet in sheets}
    assert first == {(len(memory.pages) - back) * 64 for back in (1, 2)}
    named = {int(token) for _, tokens in page.links for token in tokens.split()}
    assert min(named) >= min(first)
    assert named == set(memory.spans.tokens[memory.spans.tokens >= min(first)].tolist())
    assert row["messages"][1]["content"] in page.text("unseen")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([conversation("a", 2, 5)], "text tokens stay text"),
        ([conversation("a", 1)], "No history: nothing to remember"),
        ([conversation("a", 1, 1500)], "No sample can be made"),
    ],
)
def test_a_conversation_without_memory_says_why(make, rows, told):
    result, page, _ = make(rows)
    assert any(told in line for line in result["summary"])
    assert page.all("figure") == []
    assert rows[0]["messages"][-1]["content"][:3000] in page.text("text") + page.text("answer")


def test_conversations_with_memory_come_first_and_the_file_stays_small(make, monkeypatch):
    rows = [conversation("short", 1, 3), *(conversation(f"c{n}", 4) for n in range(4))]
    result, _, _ = make(rows, limit=3)
    assert [one["id"] for one in result["conversations"]] == ["c0", "c1", "c2"]
    result, _, _ = make(rows, limit=9)
    assert [one["id"] for one in result["conversations"]] == ["c0", "c1", "c2", "c3", "short"]
    assert "4 with memory among the first 5" in result["summary"][0]
    monkeypatch.setattr(preview, "_MOST_BYTES", 100_000)
    result, _, _ = make(rows, limit=9)
    assert 1 <= len(result["conversations"]) < 5
    assert "no more, so that the file stays below" in result["summary"][0]
    monkeypatch.setattr(preview, "_MOST_BYTES", 1)
    assert len(make(rows, limit=9)[0]["conversations"]) == 1


def test_long_messages_that_stay_text_are_cut_and_say_so(make):
    row = conversation("a", 4)
    row["messages"][-2]["content"] = "x" * 5000
    html = Path(make([row])[0]["preview"]).read_text(encoding="utf-8")
    assert "(2,000 more characters are not shown)" in html
    assert "x" * 3001 not in html


def test_pictures_are_shown_as_the_pages_they_become(make_config, tmp_path):
    for name in ("a.png", "<b>.png"):
        image = Image.new("L", (100, 40), 255)
        image.paste(0, (0, 0, 30, 30))
        image.save(tmp_path / name)
    result = preview_pictures(make_config(), [tmp_path / "a.png", tmp_path / "<b>.png"], 2, tmp_path / "preview")
    assert [Path(path).name for path in result["pictures"]] == ["page-000.png", "page-001.png"]
    assert [Image.open(path).size for path in result["pictures"]] == [(512, 512)] * 2
    page = opened(result)
    assert [str(sheet["data-kept"]).count("1") for sheet in page.all("div") if sheet.get("class") == "sheet"] == [1, 1]
    assert "<b>.png → 1 memory token" in Path(result["preview"]).read_text(encoding="utf-8").replace(
        "&lt;", "<"
    ).replace("&gt;", ">")
    assert page.all("b") == []
    assert "100 x 40 px" in result["summary"][0]
    assert json.dumps(result)


@pytest.mark.parametrize(
    ("words", "shown"),
    [("--preview a.png", 1), ("--preview a.png b.PNG", 2), ("--preview 1 a.png b.PNG", 1), ("b.PNG --preview", 1)],
)
def test_the_word_behind_the_option_is_a_number_or_a_picture(
    words: str, shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(small_settings(tmp_path)), encoding="utf-8")
    for name in ("a.png", "b.PNG"):
        Image.linear_gradient("L").save(name)
    assert main(["render", *words.split()]) == 0, capsys.readouterr().err
    assert len(list(Path("preview").glob("page-*.png"))) == shown


def test_a_word_that_is_neither_number_nor_picture_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--preview", "four"]) == 2
    assert "is not a number, nor a PNG or JPEG file" in capsys.readouterr().err


def test_blank_tokens_are_drawn_where_the_page_has_no_ink(make):
    _, page, _ = make([conversation("a", 4)])
    sheet = [values for values in page.all("div") if values.get("class") == "sheet"][-1]
    mask = np.array(list(str(sheet["data-kept"]))) == "0"
    path = [str(values["d"]) for values in page.all("path") if values.get("class") == "blank"][-1]
    drawn = {(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", path)}
    assert drawn == {(number % 8, number // 8) for number in np.flatnonzero(mask).tolist()}
    assert drawn

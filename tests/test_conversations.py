"""Reading conversations: what is accepted, what each bad line is told, and that nothing is lost."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ocrmem.config import DataSection, RunConfig
from ocrmem.conversations import Conversation, Message, read_conversations, scan_conversations, split_turns
from ocrmem.conversations.lines import MAX_LINE_BYTES, read_lines
from ocrmem.conversations.parse import MAX_MESSAGES, parse_line
from ocrmem.conversations.sources import held_out
from ocrmem.errors import DataError

USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}
GOOD = json.dumps({"id": "good", "messages": [USER, ASSISTANT]})


def line_of(*messages: Any, **fields: Any) -> bytes:
    return json.dumps({"messages": list(messages), **fields}).encode()


def config_for(path: Path, **data: Any) -> RunConfig:
    return RunConfig(data=DataSection(**data).model_copy(update={"path": str(path)}))


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / f"{name}.jsonl").write_bytes(raw)
    return folder


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("openai", line_of(USER, ASSISTANT), [("user", "hi"), ("assistant", "yo")]),
        (
            "sharegpt",
            b'{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}',
            [("user", "hi"), ("assistant", "yo")],
        ),
        (
            "sharegpt tools",
            json.dumps(
                {
                    "system": "be brief",
                    "conversations": [
                        {"from": "human", "value": "weather?"},
                        {"from": "function_call", "value": '{"name": "w"}'},
                        {"from": "observation", "value": "rain"},
                        {"from": "gpt", "value": "It rains."},
                    ],
                }
            ).encode(),
            [
                ("system", "be brief"),
                ("user", "weather?"),
                ("assistant", '{"name": "w"}'),
                ("tool", "rain"),
                ("assistant", "It rains."),
            ],
        ),
        (
            "conversations with role and content",
            b'{"conversations": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}',
            [("user", "hi"), ("assistant", "yo")],
        ),
        (
            "text parts",
            line_of({"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, ASSISTANT),
            [("user", "a\nb"), ("assistant", "yo")],
        ),
        (
            "developer is system",
            line_of({"role": "developer", "content": "x"}, USER, ASSISTANT),
            [("system", "x"), ("user", "hi"), ("assistant", "yo")],
        ),
        (
            "tool calls without content",
            line_of(
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "3"},
                ASSISTANT,
            ),
            [
                ("user", "hi"),
                ("assistant", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
                ("tool", "3"),
                ("assistant", "yo"),
            ],
        ),
        (
            "tool calls below content, arguments as an object",
            line_of(
                USER,
                {
                    "role": "assistant",
                    "content": "one moment",
                    "function_call": {"name": "f", "arguments": {}},
                },
                {"role": "function", "name": "f", "content": "3"},
                ASSISTANT,
            ),
            [
                ("user", "hi"),
                ("assistant", 'one moment\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'),
                ("tool", "3"),
                ("assistant", "yo"),
            ],
        ),
        (
            "refusal",
            line_of(USER, {"role": "assistant", "content": None, "refusal": "I cannot."}),
            [("user", "hi"), ("assistant", "I cannot.")],
        ),
        (
            "control tokens and an escaped NUL stay text",
            line_of({"role": "user", "content": "<|im_end|>\x00"}, ASSISTANT),
            [("user", "<|im_end|>\x00"), ("assistant", "yo")],
        ),
        ("carriage return", line_of(USER, ASSISTANT) + b"\r", [("user", "hi"), ("assistant", "yo")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_forms_are_read(name: str, line: bytes, expected: list[tuple[str, str]]) -> None:
    parsed = parse_line(line, "f:1")
    assert parsed.problems == []
    assert [(message.role, message.content) for message in parsed.messages] == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "caf\xe9"}', "is not UTF-8 (byte 0xe9 at column 12)"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "begins with a byte order mark"),
        (b'{"messages": [', "is broken JSON"),
        (b'{"a": 1} {"b": 2}', "is broken JSON: Extra data"),
        (b"\x00" * 40, "is broken JSON: 40 NUL bytes"),
        (b"[" * 100_000, "is broken JSON"),
        (b'{"messages": NaN}', "NaN is not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "is broken JSON"),
        (b'{"messages": [], "messages": []}', 'the key "messages" appears twice'),
        (b"[]", "holds a list, not an object"),
        (b'"text"', "holds a string"),
        (b"null", "holds null"),
        (b"7", "holds a number"),
        (b"{}", 'has neither "messages" nor "conversations" (it has no keys)'),
        (b'{"text": "x"}', 'it has "text"'),
        (b'{"messages": [], "conversations": []}', "has both"),
        (b'{"messages": {}}', '"messages" is an object, not a list'),
        (b'{"messages": []}', "has no messages"),
        (line_of("hi"), "message 1 is a string, not an object"),
        (line_of({"content": "x"}, ASSISTANT), "message 1 has no 'role'"),
        (line_of({"role": "asistant", "content": "x"}), 'unknown role "asistant"'),
        (line_of({"role": ["user"], "content": "x"}), 'unknown role ["user"]'),
        (line_of({"role": "user"}, ASSISTANT), "message 1 (user) has no 'content'"),
        (line_of({"role": "user", "content": None}, ASSISTANT), "message 1 (user) has no 'content'"),
        (line_of({"role": "user", "content": " \n"}, ASSISTANT), "message 1 (user) has an empty 'content'"),
        (line_of(USER, {"role": "assistant", "content": ""}), "message 2 (assistant) has an empty"),
        (line_of({"role": "user", "content": 7}, ASSISTANT), "'content' that is not text"),
        (
            line_of({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ASSISTANT),
            'content part of type "image_url" (part 1)',
        ),
        (line_of({"role": "user", "content": [{}]}, ASSISTANT), "content part without a type"),
        (
            line_of({"role": "user", "content": [{"type": "text"}]}, ASSISTANT),
            "of type 'text' without its text",
        ),
        (line_of({"role": "user", "content": []}, ASSISTANT), "has an empty 'content'"),
        (line_of(USER, {"role": "assistant", "tool_calls": [{}]}), "without a function name (call 1)"),
        (line_of(USER, {"role": "assistant", "tool_calls": "f"}), "'tool_calls' that are not a list"),
        (line_of({"role": "user", "content": None, "tool_calls": [1]}, ASSISTANT), "has no 'content'"),
        (line_of({"role": "user", "content": "\ud83d"}, ASSISTANT), "half of a surrogate pair (\\ud83d)"),
        (
            b'{"system": "\\udc00", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}',
            '"system" holds half of a surrogate pair',
        ),
        (line_of(USER), "has no assistant turn"),
        (line_of(ASSISTANT), "has no user turn"),
        (line_of(ASSISTANT, USER), "no assistant turn with weight after a user turn"),
        (line_of(USER, ASSISTANT | {"weight": 0}), "no assistant turn with weight"),
        (line_of(USER, ASSISTANT | {"weight": 0.5}), "message 2 has the weight 0.5"),
        (line_of(USER, ASSISTANT | {"weight": True}), "message 2 has the weight true"),
        (line_of(USER, ASSISTANT, id=""), '"id" is ""'),
        (line_of(USER, ASSISTANT, id=[1]), '"id" is [1]'),
        (line_of(USER, ASSISTANT, id="a\nb"), '"id" has unprintable characters'),
        (line_of(USER, ASSISTANT, id="\ud800"), '"id" has unprintable characters'),
        (line_of(USER, ASSISTANT, id="x" * 300), '"id" has 300 characters'),
        (line_of(*[USER] * (MAX_MESSAGES + 1)), f"has {MAX_MESSAGES + 1} messages"),
    ],
    ids=range(48),
)
def test_a_bad_line_is_told_where_and_why(line: bytes, said: str) -> None:
    parsed = parse_line(line, "data/train.jsonl:17")
    assert any(said in problem.message for problem in parsed.problems), parsed.problems
    for problem in parsed.problems:
        assert problem.place == "data/train.jsonl:17"
        assert problem.remedy
        str(problem).encode()


def test_all_problems_of_a_line_are_listed() -> None:
    parsed = parse_line(line_of({"role": "usr", "content": ""}, {"role": "assistant"}, id=[]), "f:1")
    assert len(parsed.problems) == 4
    assert "Did you mean 'user'?" in parsed.problems[0].remedy


@given(st.binary(max_size=400))
@example(b"\xef\xbb\xbf\xef\xbb\xbf")
@example(b'{"messages": [{"role": "user", "content": "\\ud800"}]}')
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_problems_or_a_conversation(raw: bytes) -> None:
    parsed = parse_line(raw, "f:1")
    assert bool(parsed.problems) != bool(parsed.messages and parsed.id)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "messages", "conversations", "role", "content", "from", "value", "type", "text"])
            | st.sampled_from(["weight", "tool_calls", "function", "name", "system", "refusal"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON_VALUES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_gives_problems_or_a_conversation(value: Any) -> None:
    parsed = parse_line(json.dumps(value).encode(), "f:1")
    assert bool(parsed.problems) != bool(parsed.messages and parsed.id)


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=80, deadline=None)
def test_any_file_gives_problems_or_conversations_and_rejects_hold_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = [line.replace(b"\n", b"") for line in lines] + [GOOD.encode()]
    write(folder, train=b"\n".join(lines))
    rejects = folder / "out" / "rejects.jsonl"
    try:
        read = read_conversations(config_for(folder, skip_bad=True), rejects)
    except DataError:  # the file as a whole is something else: UTF-16, gzip, one document
        read = []
    kept = [rejected_bytes(json.loads(row)) for row in rejects.read_bytes().splitlines()]
    expected = [line for line in lines[:-1] if line.strip()]
    assert kept == (expected if read else [b"\n".join(lines)])
    assert [conversation.id for conversation in read] in ([], ["good"])


def rejected_bytes(entry: dict[str, str]) -> bytes:
    assert entry["reason"]
    if "line" in entry:
        return entry["line"].encode()
    return base64.b64decode(entry["line_base64"])


def test_every_problem_of_every_file_is_raised_at_once(tmp_path: Path) -> None:
    write(tmp_path, train=f"{GOOD}\n{{\n\n[]", eval=f"{GOOD}\n", other="")
    with pytest.raises(DataError) as caught:
        read_conversations(config_for(tmp_path))
    assert caught.value.exit_code == 1
    places = [problem.place.removeprefix(f"{tmp_path}{os.sep}") for problem in caught.value.problems]
    assert places == ["other.jsonl", "train.jsonl:1", "train.jsonl:2", "train.jsonl:4"]
    assert f"has the id 'good' of {tmp_path / 'eval.jsonl'}:1 again" in str(caught.value)


def test_the_same_conversation_without_an_id_is_found_in_two_files(tmp_path: Path) -> None:
    line = json.dumps({"messages": [USER, ASSISTANT]})
    write(tmp_path, train=line, eval=line)
    with pytest.raises(DataError, match=r"train.jsonl:1: says the same as .*eval.jsonl:1"):
        read_conversations(config_for(tmp_path))


def test_skip_bad_keeps_the_good_and_every_bad_line_unchanged(tmp_path: Path) -> None:
    bad = [b'{"id": "caf\xe9"}', '{"text": "日本\\u0000"}  \r'.encode(), b"\x00\x00", GOOD.encode()]
    write(tmp_path, train=b"\n".join([GOOD.encode(), *bad, b""]))
    rejects = tmp_path / "out" / "rejects.jsonl"
    read = read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert [conversation.id for conversation in read] == ["good"]
    entries = [json.loads(row) for row in rejects.read_text(encoding="utf-8").splitlines()]
    assert [rejected_bytes(entry) for entry in entries] == bad
    assert [entry["place"].rsplit(":", 1)[1] for entry in entries] == ["2", "3", "4", "5"]
    assert [sorted(entry) for entry in entries][:2] == [
        ["line_base64", "place", "reason"],
        ["line", "place", "reason"],
    ]
    assert not list(rejects.parent.glob(".*"))


def test_skip_bad_writes_an_empty_file_when_nothing_is_rejected(tmp_path: Path) -> None:
    write(tmp_path, train=GOOD)
    rejects = tmp_path / "rejects" / "rejects.jsonl"
    rejects.parent.mkdir()
    rejects.write_text("from an earlier run")
    read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert rejects.read_bytes() == b""


def test_skip_bad_with_nothing_good_left_is_an_error_and_still_writes_the_rejects(tmp_path: Path) -> None:
    write(tmp_path, train="[]\n")
    rejects = tmp_path / "out" / "rejects.jsonl"
    with pytest.raises(DataError, match="not an object"):
        read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert rejected_bytes(json.loads(rejects.read_bytes())) == b"[]"


def test_rejects_never_overwrite_data(tmp_path: Path) -> None:
    write(tmp_path, rejects=GOOD)
    with pytest.raises(DataError, match="is one of the data files"):
        read_conversations(config_for(tmp_path, skip_bad=True), tmp_path / "rejects.jsonl")
    assert (tmp_path / "rejects.jsonl").read_text() == GOOD


def test_rejects_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, train=f"{GOOD}\n[]")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        read_conversations(config_for(tmp_path, skip_bad=True), tmp_path / "file" / "rejects.jsonl")


def test_a_50_mb_line_is_refused_in_bounded_memory_and_kept(tmp_path: Path) -> None:
    filler = b"x" * (1 << 20)
    with (tmp_path / "train.jsonl").open("wb") as handle:
        handle.write(b'{"id": "big", "messages": [{"role": "user", "content": "')
        for _ in range(50):
            handle.write(filler)
        handle.write(b'"}]}\n' + GOOD.encode() + b"\n")
    size = (tmp_path / "train.jsonl").stat().st_size - len(GOOD) - 2
    with pytest.raises(DataError, match=r"train.jsonl:1: is longer than the 16 MiB"):
        read_conversations(config_for(tmp_path))
    rejects = tmp_path / "out" / "rejects.jsonl"
    tracemalloc.start()
    read = read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [conversation.id for conversation in read] == ["good"]
    assert peak < 5 * MAX_LINE_BYTES  # the bounded head, its base64 and their parts; not the whole line
    kept = rejected_bytes(json.loads(rejects.read_bytes()))
    assert len(kept) == size
    assert kept == (tmp_path / "train.jsonl").read_bytes()[:size]


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("length", [9, 10, 11, 25])
def test_lines_at_and_over_the_bound(tmp_path: Path, length: int, ending: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a\n" + b"b" * length + ending)
    seen = [(line.whole, b"".join(line.chunks()), line.number) for line in read_lines(path, max_bytes=10)]
    assert seen == [(True, b"a", 1), (length <= 10, b"b" * length, 2)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a".encode("utf-16"), "is UTF-16"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
        (b"PAR1....", "is a parquet file"),
        (b"[\n" + GOOD.encode() + b"\n]", "is one JSON list"),
        (b"[" + GOOD.encode() + b",\n" + GOOD.encode() + b"]", "is one JSON list"),
        (b'{\n "messages": []\n}', "is JSON spread over lines"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
    ],
)
def test_a_file_that_is_no_jsonl_is_one_problem_and_kept_whole(tmp_path: Path, content: bytes, said: str) -> None:
    write(tmp_path, train=content, good=GOOD)
    with pytest.raises(DataError, match=said) as caught:
        read_conversations(config_for(tmp_path))
    assert len(caught.value.problems) == 1
    rejects = tmp_path / "out" / "rejects.jsonl"
    assert len(read_conversations(config_for(tmp_path, skip_bad=True), rejects)) == 1
    assert rejected_bytes(json.loads(rejects.read_bytes())).strip() == content.strip()


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing", "is not there"),
        ("empty", "holds no .jsonl file"),
        ("deep", "deep/inner has some"),
        ("pipe", "is neither a file nor a directory"),
        ("nul\x00", "is not there"),
    ],
)
def test_a_path_without_files_is_told(tmp_path: Path, path: str, said: str, skip_bad: bool) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.jsonl").write_text(GOOD)
    (tmp_path / "deep" / "inner").mkdir(parents=True)
    write(tmp_path / "deep" / "inner", train=GOOD)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError) as caught:
        read_conversations(config_for(tmp_path / path, skip_bad=skip_bad))
    assert said in str(caught.value)


def test_splits_come_from_names_and_otherwise_from_ids(tmp_path: Path) -> None:
    lines = {
        name: json.dumps({"id": name, "messages": [USER, ASSISTANT]})
        for name in ("train", "eval_1", "counterfactual", "more")
    }
    write(tmp_path, **lines)
    read = read_conversations(config_for(tmp_path, eval_fraction=1.0))
    assert {c.id: c.split for c in read} == {
        "counterfactual": "counterfactual",
        "eval_1": "eval",
        "more": "train",
        "train": "train",
    }
    (tmp_path / "eval_1.jsonl").unlink()
    all_held = {c.id: c.split for c in read_conversations(config_for(tmp_path, eval_fraction=1.0))}
    assert all_held == {"counterfactual": "counterfactual", "more": "eval", "train": "eval"}
    many = "\n".join(json.dumps({"id": n, "messages": [USER, ASSISTANT]}) for n in range(1000))
    write(tmp_path, train=many)
    held = [c.id for c in read_conversations(config_for(tmp_path, eval_fraction=0.1)) if c.split == "eval"]
    assert 70 < len(held) < 130
    fewer = "\n".join(many.splitlines()[::2])
    write(tmp_path, train=fewer)
    again = [c.id for c in read_conversations(config_for(tmp_path, eval_fraction=0.1)) if c.split == "eval"]
    assert again == [name for name in held if name == "more" or int(name) % 2 == 0]


def test_holding_out_does_not_depend_on_the_process() -> None:
    code = "from ocrmem.conversations.sources import held_out\nprint([n for n in range(60) if held_out(str(n), 0.2)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[n for n in range(60) if held_out(str(n), 0.2)]}\n"}


def test_a_file_name_that_is_no_text_does_not_break_places(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text(f"{GOOD}\n[]\n")
    rejects = tmp_path / "out" / "rejects.jsonl"
    (read,) = read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert read.place.endswith("caf\\udce9.jsonl:1")
    assert json.loads(rejects.read_bytes())["place"].endswith("caf\\udce9.jsonl:2")


def test_one_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text(GOOD)
    assert read_conversations(config_for(tmp_path / "chat.txt"))[0].place == f"{tmp_path / 'chat.txt'}:1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_told_even_with_skip_bad(tmp_path: Path) -> None:
    write(tmp_path, a=GOOD, b=GOOD)
    (tmp_path / "a.jsonl").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        read_conversations(config_for(tmp_path, skip_bad=True))


def test_a_file_that_goes_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a=GOOD)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ocrmem.conversations.read.read_lines", fail)
    reading = scan_conversations(tmp_path, 0.1)
    assert reading.unusable
    assert "cannot be read (Input/output error)" in str(reading.problems[0])


def test_large_data_shows_a_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a=f"{GOOD}\n")
    advanced: list[float] = []
    monkeypatch.setattr("ocrmem.conversations.read._SHOW_PROGRESS_OVER", 0)
    monkeypatch.setattr("ocrmem.console.Bar.advance", lambda _, by=1: advanced.append(by))
    scan_conversations(tmp_path, 0.0)
    assert sum(advanced) == len(GOOD) + 1


def conversation(*roles: str, **weights: int) -> Conversation:
    """A conversation by initials; s1, u1, a1 ... are the contents; ``a1=0`` sets a weight."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    messages = tuple(Message(names[role[0]], role, weights.get(role, 1)) for role in roles)  # type: ignore[arg-type]
    return Conversation("c", messages, "eval", "f:1")


@pytest.mark.parametrize(
    ("roles", "weights", "recent", "expected"),
    [
        (["u1", "a1"], {}, 1, [("c#0", "", "u1", "a1")]),
        (
            ["s1", "u1", "a1", "u2", "a2"],
            {},
            1,
            [("c#0", "", "s1 u1", "a1"), ("c#1", "u1 a1", "s1 u2", "a2")],
        ),
        (
            ["s1", "u1", "a1", "u2", "a2"],
            {},
            2,
            [("c#0", "", "s1 u1", "a1"), ("c#1", "", "s1 u1 a1 u2", "a2")],
        ),
        (["u1", "a1", "u2", "a2"], {"a1": 0}, 1, [("c#1", "u1 a1", "u2", "a2")]),
        (["a1", "u1", "a2"], {}, 1, [("c#1", "a1", "u1", "a2")]),
        (
            ["u1", "u2", "a1", "u3", "u4", "a2"],
            {},
            1,
            [("c#0", "", "u1 u2", "a1"), ("c#1", "u1 u2 a1", "u3 u4", "a2")],
        ),
        (
            ["u1", "a1", "u2", "a2", "t1", "a3"],
            {"a2": 0},
            1,
            [("c#0", "", "u1", "a1"), ("c#2", "u1 a1", "u2 a2 t1", "a3")],
        ),
        (
            ["s1", "s2", "u1", "a1", "s3", "u2", "a2"],
            {},
            1,
            [("c#0", "", "s1 s2 u1", "a1"), ("c#1", "u1 a1 s3", "s1 s2 u2", "a2")],
        ),
        (["u1", "a1", "a2"], {}, 1, [("c#0", "", "u1", "a1"), ("c#1", "", "u1 a1", "a2")]),
        (["s1", "u1"], {}, 1, []),
    ],
)
def test_turns_become_samples(
    roles: list[str], weights: dict[str, int], recent: int, expected: list[tuple[str, str, str, str]]
) -> None:
    samples = split_turns(conversation(*roles, **weights), recent)
    shown = [
        (s.id, " ".join(m.content for m in s.history), " ".join(m.content for m in s.prompt), s.answer) for s in samples
    ]
    assert shown == expected
    assert {(s.conversation_id, s.split) for s in samples} <= {("c", "eval")}


@given(st.lists(st.sampled_from("suat"), min_size=1, max_size=14), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_no_message_before_an_answer_is_lost(roles: list[str], recent: int) -> None:
    given_messages = conversation(*(f"{role}{n}" for n, role in enumerate(roles)))
    for sample in split_turns(given_messages, recent):
        told = [m.content for m in (*sample.history, *sample.prompt)]
        at = next(n for n, m in enumerate(given_messages.messages) if m.content == sample.answer)
        assert sorted(told) == sorted(m.content for m in given_messages.messages[:at])
        assert any(m.role == "user" for m in sample.prompt)

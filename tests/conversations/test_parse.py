"""What a line may hold, and what is reported of a bad one."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.conversation_files import ASSISTANT, GOOD, USER, line_of

from ocrmem.conversations.parse import MAX_MESSAGES, parse_line


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
        (
            "text parts under other names",
            line_of(
                {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "text", "value": "b"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "c"}, {"text": "d"}]},
                {"role": "user", "content": [{"type": "text", "text": {"value": "e", "annotations": []}}]},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "f"}]},
            ),
            [("user", "a\nb"), ("assistant", "c\nd"), ("user", "e"), ("assistant", "f")],
        ),
        (
            "a tool that needs nothing, and tools that give nothing back",
            line_of(
                USER,
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": " "}}]},
                {"role": "tool", "content": ""},
                {"role": "assistant", "tool_calls": [{"name": "g", "arguments": None}]},
                {"role": "tool", "content": None},
                ASSISTANT,
            ),
            [
                ("user", "hi"),
                ("assistant", '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'),
                ("tool", ""),
                ("assistant", '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'),
                ("tool", ""),
                ("assistant", "yo"),
            ],
        ),
        (
            "a system message beside the messages",
            line_of(USER, ASSISTANT, system="be brief"),
            [("system", "be brief"), ("user", "hi"), ("assistant", "yo")],
        ),
        (
            "a system message of parts, said twice",
            line_of({"role": "system", "content": "s"}, USER, ASSISTANT, system=[{"type": "text", "text": "s"}]),
            [("system", "s"), ("user", "hi"), ("assistant", "yo")],
        ),
        ("empty system message", line_of(USER, ASSISTANT, system=" "), [("user", "hi"), ("assistant", "yo")]),
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
        (line_of(USER, ASSISTANT, id=10**4000), '"id" has 4001 characters'),
        (line_of(USER, {"role": "tool"}, ASSISTANT), "message 2 (tool) has no 'content'"),
        (
            line_of(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{x"}}]}),
            'has a tool call whose arguments are not JSON, "{x" (call 1)',
        ),
        (b'{"x": ' + b"[" * 700 + b"]" * 700 + b', "id": ' + b"[" * 960 + b"]" * 960 + b"}", "deeply"),
        (line_of(*[USER] * (MAX_MESSAGES + 1)), f"has {MAX_MESSAGES + 1} messages"),
    ],
    ids=itertools.count(),
)
def test_a_bad_line_is_reported_where_and_why(line: bytes, said: str) -> None:
    parsed = parse_line(line, "data/train.jsonl:17")
    assert any(said in problem.message for problem in parsed.problems), parsed.problems
    for problem in parsed.problems:
        assert problem.place == "data/train.jsonl:17"
        assert problem.remedy
        str(problem).encode()


@pytest.mark.parametrize("kind", ["image", "image_url", "input_image", "input_audio"])
def test_a_picture_among_the_parts_is_refused_with_the_command_that_takes_it(kind: str) -> None:
    (problem,) = parse_line(line_of({"role": "user", "content": [{"type": kind}]}, ASSISTANT), "f:1").problems
    assert ("`ocrmem ask PICTURE" in problem.remedy) == (kind != "input_audio")


def test_a_key_twice_among_very_many_is_found_in_one_pass() -> None:
    """Counting each key for each other took more than a minute for a line of 209 KB."""
    line = "{" + ",".join(f'"k{n}": 1' for n in range(300_000)) + ', "k299999": 2}'
    started = time.process_time()
    [problem] = parse_line(line.encode(), "f:1").problems
    assert 'the key "k299999" appears twice' in problem.message
    assert time.process_time() - started < 60


def test_all_problems_of_a_line_are_listed() -> None:
    parsed = parse_line(line_of({"role": "usr", "content": ""}, {"role": "assistant"}, id=[]), "f:1")
    assert len(parsed.problems) == 4
    assert "Did you mean 'user'?" in parsed.problems[0].remedy


@given(st.binary(max_size=400))
@example(b"\xef\xbb\xbf\xef\xbb\xbf")
@example(b'{"messages": [{"role": "user", "content": "\\ud800"}]}')
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_give_problems_or_a_conversation(raw: bytes) -> None:
    parsed = parse_line(raw, "f:1")
    assert bool(parsed.problems) != bool(parsed.messages and parsed.id)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "messages", "conversations", "role", "content", "from", "value", "type", "text"])
            | st.sampled_from(["weight", "tool_calls", "function", "name", "system", "refusal", "mask", "images"]),
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

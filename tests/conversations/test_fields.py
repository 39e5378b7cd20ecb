"""Fields beside the messages: what changes their meaning is honoured or refused, and what is not used is named."""

from __future__ import annotations

from typing import Any

import pytest
from support.conversation_files import ASSISTANT, USER, line_of

from ocrmem.conversations.parse import parse_line


@pytest.mark.parametrize("key", ["image", "images", "audio", "audios", "video", "videos"])
def test_what_is_not_text_is_refused_by_its_field(key: str) -> None:
    beside = parse_line(line_of(USER, ASSISTANT, **{key: ["a.bin"]}), "f:1")
    within = parse_line(line_of(USER | {key: ["a.bin"]}, ASSISTANT), "f:1")
    assert [problem.message for problem in beside.problems] == [
        f'has the field "{key}", and only text can be remembered'
    ]
    assert "message 1 has the field" in within.problems[0].message
    for problem in (*beside.problems, *within.problems):
        assert ("`ocrmem ask PICTURE" in problem.remedy) == key.startswith("image")
    for empty in (None, [], ""):
        assert not parse_line(line_of(USER | {key: empty}, ASSISTANT, **{key: empty}), "f:1").problems


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"label": False}, 'has "label": false, which marks its answer as a bad one'),
        ({"label": True}, None),
        ({"label": 0}, None),  # a class, not a verdict
        ({"kto_tag": False}, 'has "kto_tag": false'),
        ({"mask": "User"}, None),  # whose words are never learnt here
        ({"mask": "Assistant"}, 'has "mask": "Assistant" on the whole conversation'),
        ({"mask": "Barack"}, 'has "mask": "Barack" on the whole conversation'),
        ({"train": True, "weight": 1}, None),
        ({"train": False}, 'has "train": false on the whole conversation'),
        ({"weight": 0.5}, 'has "weight": 0.5 on the whole conversation'),
        ({"loss": 0.37}, None),  # a figure
        ({"system": "a", "system_prompt": "b"}, 'has "system" and another with another system message'),
        ({"system": 7}, '"system" is 7, not text'),
        ({"system": [{"type": "image"}]}, 'content part of type "image"'),
    ],
    ids=str,
)
def test_a_field_that_changes_what_the_messages_mean(fields: dict[str, Any], said: str | None) -> None:
    problems = parse_line(line_of(USER, ASSISTANT, **fields), "f:1").problems
    assert [said in problem.message for problem in problems if said] == ([True] if said else [])
    assert bool(problems) == bool(said)


def test_two_system_messages_that_differ_are_refused() -> None:
    line = line_of({"role": "system", "content": "a"}, USER, ASSISTANT, system="b")
    [problem] = parse_line(line, "f:1").problems
    assert 'has "system" and a first message with another system message' in problem.message


def test_fields_that_are_not_used_are_named_once_they_hold_something() -> None:
    line = line_of(USER, ASSISTANT, id="a", system="s", title="t", tools=[], source=None, **{"x" * 99: 1})
    assert parse_line(line, "f:1").unused == ["title", "tools", "x" * 60]

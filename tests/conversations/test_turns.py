"""Conversations become samples, and no message before an answer is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrmem.conversations import Conversation, Message, split_turns


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

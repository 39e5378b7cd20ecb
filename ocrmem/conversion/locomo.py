"""LoCoMo: long conversations of two people, with questions about them.

Source: Maharana et al., ACL 2024, https://github.com/snap-research/locomo (CC BY-NC 4.0; nothing of it is in this
project). A record has ``conversation`` with ``session_<n>`` and ``session_<n>_date_time``, and ``qa`` whose
``category`` is 4 for a single hop and whose ``evidence`` names turns as ``D<session>:<turn>``.

A whole conversation is thousands of tokens; each single-hop question becomes a conversation about the session that
answers it. Its figures are not the benchmark's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ocrmem.conversations.content import ContentFault
from ocrmem.conversion.draft import Draft, objects, word

_SINGLE_HOP = 4
_ACKNOWLEDGED = "Noted."  # as in the notes of `ocrmem synth`
_SESSION = re.compile(r"D(\d+):\d+")
_ASKED = ("question", "answer")


def is_sample(record: Any) -> bool:
    """Return whether a record is a conversation of LoCoMo with its questions."""
    return isinstance(record, dict) and isinstance(record.get("qa"), list) and "speaker_a" in _sessions(record)


def questions(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a record for each question of one hop within one session; the first counts those that are none."""
    sessions = _sessions(record)
    name = record.get("sample_id") or f"{sessions['speaker_a']}-{sessions.get('speaker_b')}"
    chosen = {number: session for number, item in enumerate(record["qa"], 1) if (session := _session(item)) is not None}
    others = len(record["qa"]) - len(chosen)
    for number, session in chosen.items():
        yield {
            "id": f"{name}-{number}",
            "session": sessions.get(f"session_{session}"),
            "date": sessions.get(f"session_{session}_date_time"),
            **{key: record["qa"][number - 1].get(key) for key in _ASKED},
            "others": others,
        }
        others = 0


def is_question(record: Any) -> bool:
    """Return whether a record is one that `questions` made."""
    return isinstance(record, dict) and {"session", *_ASKED} <= record.keys() and type(record.get("others")) is int


def read_question(record: dict[str, Any], draft: Draft) -> None:
    """Read a question: the session as the user's notes, then the question and its answer.

    Raises:
        ContentFault: the session is not there, or its turns are not text.
    """
    draft.name(record, "id")
    draft.used.update(("session", "date", "others", *_ASKED))
    if record["others"]:
        draft.aside["questions of several hops or sessions, or without an answer"] += record["others"]
    if record["session"] is None:
        raise ContentFault("has a question about a session that is not there", "Download the file again")
    lines = [word(record["date"]), *(_line(turn) for turn in objects(record["session"], "turns"))]
    draft.say("user", "\n".join(line for line in lines if line))
    draft.say("assistant", _ACKNOWLEDGED, weight=0)
    draft.say("user", word(record["question"]))
    draft.say("assistant", str(record["answer"]))


def _line(turn: dict[str, Any]) -> str:
    text, caption = word(turn.get("text")), word(turn.get("blip_caption"))
    shown = f"[a photo: {caption}]" if caption else ""
    return f"{word(turn.get('speaker'))}: {' '.join(part for part in (text, shown) if part)}"


def _sessions(record: dict[str, Any]) -> dict[str, Any]:
    """Return what holds the sessions: the first release has them beside the questions."""
    inner = record.get("conversation")
    return inner if isinstance(inner, dict) else record


def _session(item: Any) -> int | None:
    """Return the session that answers a question of one hop; None for another question."""
    if not isinstance(item, dict) or item.get("category") != _SINGLE_HOP or item.get("answer") is None:
        return None
    evidence = item.get("evidence")
    named = {
        found for turn in (evidence if isinstance(evidence, list) else ()) for found in _SESSION.findall(str(turn))
    }
    return int(named.pop()) if len(named) == 1 else None

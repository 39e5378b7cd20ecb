"""Each form is told by its content, read as it is meant, and gives what validate reads."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

import pytest
from support.foreign import CHATGPT, RECORDS, node

from ocrmem.conversations.content import ContentFault
from ocrmem.conversations.parse import parse_line
from ocrmem.conversion.containers import Record
from ocrmem.conversion.draft import Draft
from ocrmem.conversion.forms import FORMS, each_conversation, form_of
from ocrmem.steps.convert import STEP


def drafted(record: Any) -> Draft:
    draft = Draft()
    form_of(record).read(record, draft)
    return draft


def said(draft: Draft) -> list[tuple[Any, ...]]:
    return [
        (message["role"], message["content"], *([message["tool_calls"]] if "tool_calls" in message else []))
        for message in draft.messages
    ]


@pytest.mark.parametrize("name", RECORDS)
def test_a_form_is_told_by_its_content_and_read(name: str) -> None:
    record, form, expected = RECORDS[name]
    assert form_of(record) is FORMS[form]
    draft = drafted(record)
    assert said(draft) == expected
    assert parse_line(json.dumps({"messages": draft.messages}).encode(), "f:1").problems == []


def test_every_form_has_a_record_and_is_named_by_the_command() -> None:
    assert {form for _, form, _ in RECORDS.values()} == set(FORMS)
    parser = ArgumentParser()
    assert STEP.options
    STEP.options(parser)
    assert f"one of {', '.join(FORMS)}" in " ".join(parser.format_help().split())


def tree(**changed: Any) -> dict[str, Any]:
    return {**CHATGPT, "mapping": {**CHATGPT["mapping"], **changed}}  # type: ignore[dict-item]


IMAGE = {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "What is it?"]}
VOICE = {
    "content_type": "multimodal_text",
    "parts": [
        {"content_type": "audio_transcription", "text": "Run it."},
        {"content_type": "real_time_user_audio_video_asset_pointer"},
    ],
}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"title": "x"}, 'has no form that is known (it has "title")'),
        (7, "is no conversation"),
        ({"messages": [1]}, "has messages that are not a list of objects"),
        (tree(u2=node("a1b", ["t"], "user", content=IMAGE)), 'has a part of type "image_asset_pointer"'),
        (tree(u2=node("lost", ["t"], "user", "x")), 'has a branch that leads to "lost", which is not there'),
        (tree(u1=node("a2", [], "user", "x")), "has a branch that leads back to itself"),
        (tree(a2=node("r", [], "assistant", content={"content_type": "hologram"})), 'of type "hologram"'),
        ({**CHATGPT, "current_node": None}, "has 2 branches and no current_node"),
        ({"chat_messages": [{"sender": "human", "text": "x", "files": [{"file_name": "a.png"}]}]}, 'text, "a.png"'),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]},
            'content part of type "image"',
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64"}}]}]},
            'block of type "document"',
        ),
        ({"input": [{"role": "user", "content": "x"}, {"type": "image_generation_call"}]}, '"image_generation_call"'),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "history whose round 1 is not a question"),
        ({"prompt": "a", "completion": {"x": 1}}, "has a content that is not text"),
        ({"system": "a", "conversations": [{"from": "system", "value": "b"}]}, "has a system message beside another"),
    ],
    ids=range(15),
)
def test_what_cannot_be_kept_as_text_is_refused_by_name(record: Any, reason: str) -> None:
    with pytest.raises(ContentFault) as caught:
        drafted(record)
    assert reason in caught.value.message
    assert caught.value.remedy


def test_what_was_not_shown_is_left_aside_and_counted() -> None:
    assert drafted(CHATGPT).aside == {"messages of other branches": 1, "hidden messages": 1, "thinking": 1}
    spoken = drafted(tree(u2=node("a1b", ["t"], "user", content=VOICE)))
    assert ("user", "Run it.") in said(spoken)
    assert spoken.aside["sound with a transcript"] == 1
    assert drafted(RECORDS["claude"][0]).aside == {"messages of other branches": 1}
    assert drafted(RECORDS["openai"][0]).aside == {"thinking": 1}


def test_an_answer_that_chatgpt_gave_no_weight_gives_no_sample() -> None:
    draft = drafted(tree(a1b=node("u1", ["u2"], "assistant", "Paris.", weight=0.0)))
    assert [message.get("weight") for message in draft.messages if message["content"] == "Paris."] == [0]


def test_an_object_that_only_wraps_records_is_taken_apart() -> None:
    def records(value: object) -> list[object]:
        return [record.value for record in each_conversation(iter([Record("file.json", value, raw=b"{}")]))]

    assert records({"version": 1, "data": [CHATGPT]}) == [CHATGPT]
    assert records({"conversations": [RECORDS["openai"][0]]}) == [RECORDS["openai"][0]]
    for record, _, _ in RECORDS.values():
        assert records(record) == [record]


SESSIONS = {"speaker_a": "Ida", "speaker_b": "Otto", "session_1": [{"speaker": "Ida", "text": "hi"}]}


def locomo_question(category: int = 4, evidence: Any = ("D1:1", "D1:2"), **fields: Any) -> dict[str, Any]:
    return {"question": "Who?", "answer": "Ida", "evidence": list(evidence), "category": category, **fields}


@pytest.mark.parametrize("beside", [True, False], ids=["beside", "under conversation"])
def test_of_locomo_each_question_of_one_hop_becomes_a_conversation_about_its_session(beside: bool) -> None:
    others = [locomo_question(1), locomo_question(evidence=["D1:1", "D2:1"]), locomo_question(answer=None), "x"]
    asked = [*others, locomo_question(), locomo_question(question="What?", evidence=["D1:1; D1:3"])]
    sessions = SESSIONS if beside else {"conversation": SESSIONS}
    made = list(each_conversation(iter([Record("f:1", {"sample_id": "c", **sessions, "qa": asked})])))
    drafts = [drafted(record.value) for record in made]
    assert [(draft.id, draft.messages[0]["content"], draft.messages[2]["content"]) for draft in drafts] == [
        ("c-5", "Ida: hi", "Who?"),
        ("c-6", "Ida: hi", "What?"),
    ]
    assert [sum(draft.aside.values()) for draft in drafts] == [4, 0]


def test_a_locomo_question_without_its_session_is_refused() -> None:
    asked = {"sample_id": "c", "conversation": SESSIONS, "qa": [locomo_question(evidence=["D9:1"])]}
    (made,) = each_conversation(iter([Record("f:1", asked)]))
    with pytest.raises(ContentFault, match="a session that is not there"):
        drafted(made.value)

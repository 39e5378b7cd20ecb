"""Small files as other programs write them, and the conversations that are in them."""

from __future__ import annotations

from typing import Any


def node(parent: str | None, children: list[str], role: str | None, *parts: Any, **fields: Any) -> dict[str, Any]:
    """A node of ChatGPT's tree, with a message of that role or with none."""
    if role is None:
        return {"message": None, "parent": parent, "children": children}
    content = fields.pop("content", {"content_type": "text", "parts": list(parts)})
    message = {
        "author": {"role": role, "name": None, "metadata": {}},
        "content": content,
        "status": "finished_successfully",
        "weight": 1.0,
        "metadata": {},
        "recipient": "all",
    }
    return {"message": message | fields, "parent": parent, "children": children}


CHATGPT = {
    "title": "Paris",
    "create_time": 1700000000.5,
    "conversation_id": "conv-1",
    "id": "conv-1",
    "current_node": "a2",
    "default_model_slug": "gpt-4o",
    "mapping": {
        "root": node(None, ["s"], None),
        "s": node("root", ["u1"], "system", "", metadata={"is_visually_hidden_from_conversation": True}),
        "u1": node("s", ["a1", "a1b"], "user", "Capital of France?"),
        "a1": node("u1", [], "assistant", "Lyon."),
        "a1b": node("u1", ["u2"], "assistant", "Paris."),
        "u2": node("a1b", ["t"], "user", "Run 1+1."),
        "t": node("u2", ["c"], "assistant", content={"content_type": "thoughts", "thoughts": []}),
        "c": node("t", ["r"], "assistant", content={"content_type": "code", "text": "1+1"}, recipient="python"),
        "r": node("c", ["a2"], "tool", content={"content_type": "execution_output", "text": "2"}),
        "a2": node("r", [], "assistant", "It is 2."),
    },
}
PYTHON_CALL = [{"type": "function", "function": {"name": "python", "arguments": '{"input": "1+1"}'}}]
WEATHER_CALL = [{"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]

# By name: the record, the form that it must be told to have, and the messages as (role, content, tool calls).
Said = tuple[str, str] | tuple[str, str, list[dict[str, Any]]]
RECORDS: dict[str, tuple[Any, str, list[Said]]] = {
    "locomo": (
        {
            "id": "c-2",
            "session": [
                {"speaker": "Ida", "dia_id": "D1:1", "text": "I have a new kayak!"},
                {"speaker": "Otto", "dia_id": "D1:2", "text": "Look.", "blip_caption": "a red canoe"},
            ],
            "date": "1 May, 2031",
            "question": "What does Ida have?",
            "answer": 7,
            "others": 0,
        },
        "locomo",
        [
            ("user", "1 May, 2031\nIda: I have a new kayak!\nOtto: Look. [a photo: a red canoe]"),
            ("assistant", "Noted."),
            ("user", "What does Ida have?"),
            ("assistant", "7"),
        ],
    ),
    "openai": (
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "reasoning": "hm"}]},
        "openai",
        [("user", "hi"), ("assistant", "yo")],
    ),
    "system beside": (
        {"system": "s", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]},
        "openai",
        [("system", "s"), ("user", "hi"), ("assistant", "yo")],
    ),
    "bare list": (
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
        "openai",
        [("user", "hi"), ("assistant", "yo")],
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}], "system": "s"},
        "sharegpt",
        [("system", "s"), ("user", "hi"), ("assistant", "yo")],
    ),
    "alpaca": (
        {
            "instruction": "Translate",
            "input": "oui",
            "output": "yes",
            "system": "s",
            "history": [["Translate\nnon", "no"]],
        },
        "alpaca",
        [
            ("system", "s"),
            ("user", "Translate\nnon"),
            ("assistant", "no"),
            ("user", "Translate\noui"),
            ("assistant", "yes"),
        ],
    ),
    "dolly": (
        {"instruction": "Who?", "context": "Ana sings.", "response": "Ana", "category": "qa"},
        "alpaca",
        [("user", "Who?\nAna sings."), ("assistant", "Ana")],
    ),
    "prompt and completion": (
        {"prompt": "2+2", "completion": " 4"},
        "prompt",
        [("user", "2+2"), ("assistant", " 4")],
    ),
    "conversational prompt": (
        {"prompt": [{"role": "user", "content": "2+2"}], "completion": [{"role": "assistant", "content": "4"}]},
        "prompt",
        [("user", "2+2"), ("assistant", "4")],
    ),
    "query and response": (
        {"query": "b?", "response": "b", "history": [["a?", "a"]]},
        "prompt",
        [("user", "a?"), ("assistant", "a"), ("user", "b?"), ("assistant", "b")],
    ),
    "rounds": (
        {"conversation_id": 7, "conversation": [{"human": "a?", "assistant": "a"}, {"human": "b?", "assistant": "b"}]},
        "rounds",
        [("user", "a?"), ("assistant", "a"), ("user", "b?"), ("assistant", "b")],
    ),
    "chatgpt": (
        CHATGPT,
        "chatgpt",
        [
            ("user", "Capital of France?"),
            ("assistant", "Paris."),
            ("user", "Run 1+1."),
            ("assistant", "", PYTHON_CALL),
            ("tool", "2"),
            ("assistant", "It is 2."),
        ],
    ),
    "anthropic": (
        {
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "Weather in Oslo?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Ask the tool.", "signature": "x"},
                        {"type": "text", "text": "One moment."},
                        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
                        {"type": "text", "text": "Well?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "It rains."}]},
            ],
        },
        "anthropic",
        [
            ("system", "Be brief."),
            ("user", "Weather in Oslo?"),
            ("assistant", "One moment.", WEATHER_CALL),
            ("tool", "rain"),
            ("user", "Well?"),
            ("assistant", "It rains."),
        ],
    ),
    "claude": (
        {
            "uuid": "u-1",
            "name": "Weather",
            "chat_messages": [
                {
                    "uuid": "m1",
                    "sender": "human",
                    "text": "Read it.",
                    "attachments": [{"file_name": "a.txt", "extracted_content": "Ana sings."}],
                    "files": [{"file_name": "a.txt"}],
                },
                {"uuid": "m2", "sender": "assistant", "text": "Dead end.", "parent_message_uuid": "m1"},
                {
                    "uuid": "m3",
                    "sender": "assistant",
                    "text": "Oslo: rain.",
                    "parent_message_uuid": "m1",
                    "content": [
                        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
                        {"type": "tool_result", "tool_use_id": "t1", "content": ""},
                        {"type": "text", "text": "Oslo: rain."},
                    ],
                },
            ],
        },
        "claude",
        [
            ("user", "a.txt\nAna sings.\nRead it."),
            ("assistant", "", WEATHER_CALL),
            ("tool", ""),
            ("assistant", "Oslo: rain."),
        ],
    ),
    "responses": (
        {
            "id": "resp_1",
            "object": "response",
            "instructions": "Be brief.",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "Weather in Oslo?"}]}],
            "output": [
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "function_call", "call_id": "t1", "name": "weather", "arguments": '{"city": "Oslo"}'},
                {"type": "function_call_output", "call_id": "t1", "output": "rain"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]},
            ],
        },
        "responses",
        [
            ("system", "Be brief."),
            ("user", "Weather in Oslo?"),
            ("assistant", "", WEATHER_CALL),
            ("tool", "rain"),
            ("assistant", "It rains."),
        ],
    ),
    "responses with texts": (
        {"input": "hi", "output": [{"type": "message", "role": "assistant", "content": "yo"}]},
        "responses",
        [("user", "hi"), ("assistant", "yo")],
    ),
}

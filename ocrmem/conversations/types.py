"""Conversations, messages and samples, as read from data files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "eval", "counterfactual"]
SPLITS: tuple[Split, ...] = get_args(Split)
_ALIASES: dict[Role, str] = {
    "system": "system developer",
    "user": "user human",
    "assistant": "assistant gpt chatgpt model bot function_call tool_call",
    "tool": "tool function observation function_response tool_response",
}
ROLES = {alias: role for role, aliases in _ALIASES.items() for alias in aliases.split()}


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: of the speaker.
        content: always valid UTF-8, and empty only where a tool gave back nothing.
        weight: 0 on an assistant message means that no sample is made from it (the field of the same name
            in OpenAI's fine-tuning format); 1 otherwise.
    """

    role: Role
    content: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a data file.

    Attributes:
        id: unique over all files; a line without one gets a hash of its messages.
        messages: in the order of the file.
        split: "train", "eval" or "counterfactual".
        place: ``file:line`` it was read from.
    """

    id: str
    messages: tuple[Message, ...]
    split: Split
    place: str


@dataclass(frozen=True, slots=True)
class TurnSample:
    """One assistant turn of a conversation: what may become memory, what stays text, what is learnt.

    Attributes:
        id: ``<conversation id>#<turn>``.
        conversation_id: the conversation it comes from.
        split: the conversation's.
        turn: which assistant turn of the conversation the answer is, from 0.
        history: the messages before the recent turns, without the opening system messages; may be empty.
        prompt: the opening system messages and the recent turns, up to the answer.
        answer: the assistant's message.
    """

    id: str
    conversation_id: str
    split: Split
    turn: int
    history: tuple[Message, ...]
    prompt: tuple[Message, ...]
    answer: str

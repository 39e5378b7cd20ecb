"""Split a conversation into samples: one for each assistant turn that has weight."""

from __future__ import annotations

from ocrmem.conversations.types import Conversation, TurnSample


def split_turns(conversation: Conversation, recent_turns: int) -> list[TurnSample]:
    """Return one sample for each assistant message with weight that follows a user message, in their order.

    ``turn`` counts assistant messages from 0, weightless ones included, so an id does not change when a weight does.

    Args:
        conversation: as read.
        recent_turns: how many of the last user turns stay text. Consecutive user messages are one turn, and a tool's
            answer belongs to the turn whose question led to it.
    """
    messages = conversation.messages
    opening = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    user_turns: list[int] = []
    samples: list[TurnSample] = []
    turn = -1
    for index, message in enumerate(messages):
        if message.role == "user" and (index == 0 or messages[index - 1].role != "user"):
            user_turns.append(index)
        if message.role != "assistant":
            continue
        turn += 1
        if not user_turns or message.weight == 0:
            continue
        recent = user_turns[-recent_turns] if len(user_turns) >= recent_turns else opening
        samples.append(
            TurnSample(
                id=f"{conversation.id}#{turn}",
                conversation_id=conversation.id,
                split=conversation.split,
                turn=turn,
                history=messages[opening:recent],
                prompt=messages[:opening] + messages[recent:index],
                answer=message.content,
            )
        )
    return samples

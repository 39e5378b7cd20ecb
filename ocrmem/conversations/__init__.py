"""Conversations from JSONL files: read, checked line by line, split into samples.

`read_conversations` gives conversations, or every problem with its ``file:line``; `split_turns` makes one sample of
each assistant turn.
"""

from ocrmem.conversations.located import StoredConversations
from ocrmem.conversations.read import ConversationReader, locate_conversations, read_conversations
from ocrmem.conversations.turns import split_turns
from ocrmem.conversations.types import SPLITS, Conversation, Message, Role, Split, TurnSample

__all__ = [
    "SPLITS",
    "Conversation",
    "ConversationReader",
    "Message",
    "Role",
    "Split",
    "StoredConversations",
    "TurnSample",
    "locate_conversations",
    "read_conversations",
    "split_turns",
]

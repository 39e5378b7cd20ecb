"""Answering from memory: the verb ``generate`` for one question, `ChatSession` for a conversation that goes on."""

from ocrmem.generation.question import read_question
from ocrmem.generation.session import ChatSession
from ocrmem.generation.verb import generate

__all__ = ["ChatSession", "generate", "read_question"]

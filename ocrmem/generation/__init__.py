"""Answering from memory: the verb ``generate`` for one question, `ChatSession` for a conversation that continues."""

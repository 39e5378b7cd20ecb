"""Made-up conversations that ask for what was said before: a tiny dialect, notes in English, chat in two languages."""

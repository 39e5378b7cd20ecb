"""Made-up conversations that ask for what was said before: a tiny dialect, and English and Chinese chat."""

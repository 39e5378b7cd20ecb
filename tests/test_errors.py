"""What the errors of other libraries are shown as."""

from __future__ import annotations

from ocrmem.errors import first_line


def test_an_error_without_text_is_called_by_its_type() -> None:
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("first\nsecond")) == "first"

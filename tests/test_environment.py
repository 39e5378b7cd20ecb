"""Environment variables are as they were afterwards, also after an error."""

from __future__ import annotations

import os

import pytest

from ocrmem.environment import environment


def _fail_inside() -> None:
    with environment({"OCRMEM_A": "new", "OCRMEM_B": "new"}):
        assert (os.environ["OCRMEM_A"], os.environ["OCRMEM_B"]) == ("new", "new")
        del os.environ["OCRMEM_B"]  # what the block itself removes is no error
        raise RuntimeError


def test_variables_are_put_back_or_removed_even_when_the_block_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRMEM_A", "old")
    monkeypatch.delenv("OCRMEM_B", raising=False)
    with pytest.raises(RuntimeError):
        _fail_inside()
    assert os.environ["OCRMEM_A"] == "old"
    assert "OCRMEM_B" not in os.environ

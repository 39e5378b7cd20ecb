"""Environment variables are as they were afterwards, also after an error; what torch needs to compile is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocrmem import environment as surroundings
from ocrmem.environment import environment, keep_compiled, missing_to_compile


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


def test_what_is_compiled_is_kept_in_this_users_cache_unless_the_environment_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    assert keep_compiled() == tmp_path / "ocrmem" / "compiled" == Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    assert keep_compiled() == Path("/elsewhere")


@pytest.mark.parametrize(
    ("on_gpu", "triton", "programs", "headers", "missing"),
    [
        (True, False, ["gcc"], True, "Triton is not installed"),
        (True, True, ["g++"], True, "there is no compiler of C"),
        (False, False, ["gcc"], True, "there is no compiler of C++"),
        (True, True, ["gcc"], False, "Python's headers are not in "),
        (True, True, ["mycc"], True, ""),
        (False, False, ["clang++"], True, ""),
    ],
)
def test_what_torch_lacks_to_compile_is_named(
    on_gpu: bool,
    triton: bool,
    programs: list[str],
    headers: bool,
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if headers:
        (tmp_path / "Python.h").touch()
    monkeypatch.setenv("CC", "mycc")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(surroundings, "find_spec", lambda name: triton or None)
    monkeypatch.setattr(surroundings, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(surroundings.sysconfig, "get_path", lambda name: str(tmp_path))
    found = missing_to_compile(on_gpu=on_gpu)
    assert found.startswith(missing)
    assert bool(found) == bool(missing)

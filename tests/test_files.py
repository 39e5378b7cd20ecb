"""Writing so that nobody sees half of a file or directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrmem.errors import ConfigError, MissingInputError
from ocrmem.files import read_json, replacing_directory


def test_a_directory_that_is_replaced_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replacing_directory(target) as fresh:
        (fresh / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(RuntimeError), replacing_directory(target) as fresh:  # noqa: PT012
        (fresh / "b").write_text("2")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_mount_point_is_refused_before_any_work() -> None:
    # /proc is mounted wherever these tests run.
    with pytest.raises(ConfigError, match="is a mount point"), replacing_directory(Path("/proc")):
        pytest.fail("the block must not run")


def test_a_directory_where_a_json_file_belongs_is_named_with_the_verb_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"cannot be read .* run `ocrmem render` again"):
        read_json(tmp_path, made_by="render")

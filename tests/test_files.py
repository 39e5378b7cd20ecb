"""Writing so that nobody sees half of a file or directory, and no two write at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.held import held_elsewhere

from ocrmem.errors import BusyError, ConfigError, MissingInputError
from ocrmem.files import atomic, hashing, locked, replacing_directory, sha256_code, write_json, write_text
from ocrmem.json_files import DatasetManifest, read_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which a directory takes another's place; not every file system can exchange them."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("swap")
def test_a_directory_that_is_replaced_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replacing_directory(target) as fresh:
        (fresh / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(RuntimeError), replacing_directory(target) as fresh:  # noqa: PT012
        (fresh / "b").write_text("2")
        raise RuntimeError
    assert names(target) == ["a"]
    with replacing_directory(target) as fresh:
        (fresh / "c").write_text("3")
    assert names(target) == ["c"]
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("swap")
def test_a_link_to_a_directory_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    volume, link = tmp_path / "volume" / "adapter", tmp_path / "adapter"
    link.symlink_to(volume)  # dangling at first
    for content in "1", "2":
        with replacing_directory(link) as fresh:
            (fresh / "weights").write_text(content)
        assert link.is_symlink()
        assert (volume / "weights").read_text() == content
    assert names(volume.parent) == ["adapter"]
    assert names(tmp_path) == ["adapter", "volume"]


def test_a_stop_between_two_renames_leaves_the_old_directory_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    write_text(target / "a", "old")
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    rename = Path.rename

    def no_room(path: Path, to: Path) -> Path:
        if path.name == ".out.new":
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", no_room)
    with pytest.raises(OSError, match="No space"), replacing_directory(target):
        pass
    assert (target / "a").read_text() == "old"

    # As kill -9 leaves it: the next run fails too, and still nothing is lost.
    target.rename(tmp_path / ".out.old")
    with pytest.raises(RuntimeError), replacing_directory(target):
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_place_of_a_directory_is_refused_and_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "out", "mine")
    with pytest.raises(ConfigError, match="is a file"), replacing_directory(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_written_through_a_link_leaves_what_the_link_points_to(tmp_path: Path) -> None:
    cached, output = tmp_path / "cached", tmp_path / "output"
    cached.write_text("of the cache")
    output.symlink_to(cached)
    write_text(output, "new")
    assert (output.read_text(), cached.read_text()) == ("new", "of the cache")
    assert not output.is_symlink()


def test_two_writers_of_a_file_do_not_meet_in_its_temporary_name(tmp_path: Path) -> None:
    (tmp_path / ".out.0.tmp").write_text("left by a killed process, and longer than what comes")
    with atomic.replacing_file(tmp_path / "out") as first:
        first.write(b"fir")
        write_text(tmp_path / "out", "second")
        assert (tmp_path / "out").read_text() == "second"
        first.write(b"st")
    assert (tmp_path / "out").read_text() == "first"
    assert names(tmp_path) == ["out"]


def test_a_mount_point_is_refused_before_any_work() -> None:
    # /proc is mounted wherever these tests run.
    with pytest.raises(ConfigError, match="is a mount point"), replacing_directory(Path("/proc")):
        pytest.fail("the block must not run")


def test_a_directory_where_a_json_file_belongs_is_named_with_the_verb_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"cannot be read .* run `ocrmem render` again"):
        read_json(tmp_path, DatasetManifest, made_by="render")


def test_who_comes_second_is_told_who_writes_and_may_wait(tmp_path: Path) -> None:
    (tmp_path / "other name").symlink_to(tmp_path / "out")
    with held_elsewhere(tmp_path / "out") as holder:
        for name in "out", "other name":
            with pytest.raises(BusyError) as refused, locked(tmp_path / name, "render"):
                pytest.fail("the block must not run")
            (problem,) = refused.value.problems
            assert problem.place == str(tmp_path / name)
            assert f"another `ocrmem render` (process {holder.pid} on {os.uname().nodename}, since " in problem.message
        threading.Timer(0.5, holder.kill).start()
        with locked(tmp_path / "out", "render", wait=300):
            assert json.loads((tmp_path / ".out.lock").read_text())["pid"] == os.getpid()
    assert names(tmp_path) == ["other name"]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "out") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert names(tmp_path) == [".out.lock"]
    with locked(tmp_path / "out", "render"):
        pass
    assert names(tmp_path) == []


def test_what_a_dead_process_has_left_running_is_said_to_hold_the_lock(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "out"):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        place = tmp_path / ".out.lock"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"pid": gone.pid}))
        with pytest.raises(BusyError, match="that process has ended, a child has not"), locked(tmp_path / "out"):
            pass
        place.write_text("not what a holder writes")
        with pytest.raises(BusyError, match="is being written by another process"), locked(tmp_path / "out"):
            pass


def test_a_thread_may_lock_again_what_it_holds_and_another_thread_may_not(tmp_path: Path) -> None:
    refused: list[BusyError] = []

    def try_it() -> None:
        try:
            with locked(tmp_path / "out"):
                pass
        except BusyError as error:
            refused.append(error)

    with locked(tmp_path / "out", "register"):
        with replacing_directory(tmp_path / "out") as fresh:
            (fresh / "a").touch()
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        assert names(tmp_path) == [".out.lock", "out"], "the inner block does not release the outer one's lock"
    assert len(refused) == 1
    assert names(tmp_path) == ["out"]


def test_a_file_system_without_locks_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ocrmem.files import locks

    def unsupported(handle: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    for _ in range(2):
        write_json(tmp_path / "value.json", {})
    assert capsys.readouterr().err.count("has no file locks") == 1
    assert names(tmp_path) == ["value.json"]


def test_code_is_another_with_any_file_but_what_python_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_PACKAGE", tmp_path)
    for name in ("tokens.py", "rendering/data/glyphs.npz", "families/qwen3.py"):
        write_text(tmp_path / name, "1")
    whole, drawing = sha256_code(), sha256_code("tokens.py", "rendering")
    write_text(tmp_path / "families" / "__pycache__" / "qwen3.pyc", "2")
    assert sha256_code() == whole
    write_text(tmp_path / "families" / "qwen3.py", "2")
    assert sha256_code() != whole
    assert sha256_code("tokens.py", "rendering") == drawing
    write_text(tmp_path / "rendering" / "data" / "glyphs.npz", "2")
    assert sha256_code("tokens.py", "rendering") != drawing

"""The dataset under DVC: the real `dvc` finds it, a second push transfers nothing, half a push is no dataset."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.page_dataset import write_manifest
from support.registered import change_json
from support.s3 import ACCESS_KEY, SECRET_KEY, S3Service

from ocrmem.config import RunConfig
from ocrmem.dataset.shards import describe
from ocrmem.errors import ConfigError, DataError, MissingInputError
from ocrmem.files import sha256_file, sha256_tree
from ocrmem.versioning import open_dataset, version_dataset

pytest.importorskip("dvc")
FILES = 12
_DVC_CONFIG = "[core]\n    remote = store\n    analytics = false\n['remote \"store\"']\n    url = {url}\n"
REPOSITORY = Path(__file__).resolve().parents[2]


def write_dataset(directory: Path, seed: int = 0) -> Path:
    """A dataset as far as its manifest goes; two of its shards are equal, as DVC stores those once."""
    shards = []
    for index in range(FILES - 1):
        path = directory / ("pages" if index % 2 else "samples") / f"shard-{index:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{seed} {min(index, FILES - 3)} ".encode() * 50)
        shards.append(describe(path, directory, 1))
    write_manifest(directory, shards, seed=seed)
    return directory


@dataclass
class Remote:
    """A remote, how `version` is told of it, and what can be asked of it."""

    kind: str
    config: RunConfig
    objects: Callable[[], dict[str, Any]]  # what is there, with times: equal only if nothing was written
    dvc_config: str  # how a DVC repository is told of it
    path: Path | None = None

    def files(self) -> list[str]:
        return sorted("".join(key.split("/")[-2:]) for key in self.objects())

    def lists(self) -> list[str]:
        return [name for name in self.files() if name.endswith(".dir")]


@pytest.fixture(params=["directory", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A dataset in a workspace, and an empty remote of each kind."""
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "dataset")
    if request.param == "directory":
        return directory_remote(tmp_path)
    return s3_remote(request.getfixturevalue("s3"))


def directory_remote(root: Path) -> Remote:
    place = root / "remote"
    place.mkdir()

    def objects() -> dict[str, Any]:
        found = (file for file in place.rglob("*") if file.is_file())
        return {file.relative_to(place).as_posix(): file.stat().st_mtime_ns for file in found}

    return Remote(
        "directory",
        RunConfig.model_validate({"version": {"remote": str(place)}}),
        objects,
        _DVC_CONFIG.format(url=place),
        place,
    )


def s3_remote(s3: S3Service) -> Remote:
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    s3.make_bucket(bucket)
    url = f"s3://{bucket}/datasets/tiny"
    return Remote(
        "s3",
        RunConfig.model_validate({"version": {"remote": url, "endpoint_url": s3.url}}),
        lambda: s3.objects(bucket),
        _DVC_CONFIG.format(url=url) + f"    endpointurl = {s3.url}\n",
    )


def command(arguments: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def run(*arguments: str, cwd: Path) -> None:
    done = command(list(arguments), cwd)
    assert done.returncode == 0, done.stderr


def version_settings(config: RunConfig) -> list[str]:
    section = config.version
    return [
        "--set",
        f"version.remote={section.remote}",
        "--set",
        f"version.endpoint_url={section.endpoint_url or 'null'}",
    ]


# What the verb does, on both kinds of remote


def test_what_is_pushed_opens_again_by_its_hash(remote: Remote, tmp_path: Path) -> None:
    result = version_dataset(remote.config)
    written = json.loads((tmp_path / "version.json").read_text(encoding="utf-8"))
    assert written.pop("sha256")
    assert written == {key: value for key, value in result.items() if key != "summary"}
    assert (result["files"], result["pushed"]) == (FILES, FILES)  # two files are one object; the list is one more
    assert result["dataset_manifest_sha256"] == sha256_file(tmp_path / "dataset" / "manifest.json")
    assert remote.lists() == [result["md5"]]
    for digest in (result["md5"], result["md5"].removesuffix(".dir")):
        opened = open_dataset(remote.config, digest, tmp_path / f"opened-{digest}")
        assert opened["fetched"] == FILES
        assert sha256_tree(Path(opened["dataset"])) == sha256_tree(tmp_path / "dataset")


def test_a_second_push_transfers_nothing(remote: Remote, request: pytest.FixtureRequest) -> None:
    first = version_dataset(remote.config)
    before = remote.objects()
    s3: S3Service | None = request.getfixturevalue("s3") if remote.kind == "s3" else None
    if s3:
        s3.reset()
    again = version_dataset(remote.config)
    assert again["pushed"] == 0
    assert again["md5"] == first["md5"]
    assert remote.objects() == before
    if s3:
        assert s3.writes == []
        assert len(s3.calls) < 8  # lists, not a question for every file


def test_only_what_changed_is_pushed(remote: Remote, tmp_path: Path) -> None:
    first = version_dataset(remote.config)
    manifest = tmp_path / "dataset" / "manifest.json"
    change_json(manifest, more=True)
    second = version_dataset(remote.config)
    assert second["pushed"] == 2  # the manifest and the list
    assert second["md5"] != first["md5"]
    for result in (first, second):
        open_dataset(remote.config, result["md5"], tmp_path / "opened")


def test_an_object_that_was_lost_is_pushed_again(remote: Remote, request: pytest.FixtureRequest) -> None:
    version_dataset(remote.config)
    lost = next(key for key in remote.objects() if not key.endswith(".dir"))
    if remote.path:
        (remote.path / lost).unlink()
    else:
        bucket = str(remote.config.version.remote).split("/")[2]
        request.getfixturevalue("s3").client().delete_object(Bucket=bucket, Key=lost)
    assert version_dataset(remote.config)["pushed"] == 1


@pytest.mark.slow
def test_the_dvc_command_pulls_it_and_gives_it_the_same_hash(remote: Remote, tmp_path: Path) -> None:
    result = version_dataset(remote.config)
    repository = tmp_path / "elsewhere"
    repository.mkdir()
    dvc = [sys.executable, "-m", "dvc"]
    run("git", "init", "-q", cwd=repository)
    (repository / ".dvc").mkdir()  # all that `dvc init` and `dvc remote add` would leave, without their seconds
    (repository / ".dvc" / "config").write_text(remote.dvc_config, encoding="utf-8")
    written = Path(result["dvc_file"]).read_text(encoding="utf-8")
    (repository / "dataset.dvc").write_text(written, encoding="utf-8")
    run(*dvc, "pull", "-q", cwd=repository)
    assert sha256_tree(repository / "dataset") == sha256_tree(tmp_path / "dataset")
    run(*dvc, "add", "-q", "dataset", cwd=repository)
    assert (repository / "dataset.dvc").read_text(encoding="utf-8") == written


# Interruption

_KILLED = """
import os, signal, sys
from ocrmem.config import RunConfig
from ocrmem.versioning import version_dataset
{patch}
version_dataset(RunConfig.model_validate({version!r}))
"""
_AFTER_SOME_FILES = """
replace, done = os.replace, []
def killing(source, target):
    replace(source, target)
    done.append(target)
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killing
"""
_BEFORE_THE_LIST = """
from dvc_objects.db import ObjectDB
ObjectDB.add_bytes = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_the_middle(remote: Remote, patch: str, root: Path) -> None:
    code = _KILLED.format(patch=patch, version={"version": remote.config.version.model_dump()})
    done = command([sys.executable, "-c", code], root)
    assert done.returncode == -9, done.stderr


def check_that_a_rerun_completes_it(remote: Remote, root: Path) -> None:
    there = len(remote.files())
    assert 0 < there < FILES
    assert remote.lists() == []
    assert not (root / "version.json").exists()
    assert not (root / "version").exists()
    result = version_dataset(remote.config)
    assert remote.lists() == [result["md5"]]
    assert 0 < result["pushed"] <= FILES
    opened = open_dataset(remote.config, result["md5"], root / "opened")
    assert sha256_tree(Path(opened["dataset"])) == sha256_tree(root / "dataset")


@pytest.mark.parametrize("patch", [_AFTER_SOME_FILES, _BEFORE_THE_LIST], ids=["after some files", "before the list"])
def test_a_push_into_a_directory_that_is_killed_is_no_dataset(
    patch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "dataset")
    remote = directory_remote(tmp_path)
    kill_in_the_middle(remote, patch, tmp_path)
    check_that_a_rerun_completes_it(remote, tmp_path)


def test_a_push_into_a_bucket_that_is_killed_is_no_dataset(
    s3: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "dataset")
    remote = s3_remote(s3)
    kill_in_the_middle(remote, _BEFORE_THE_LIST, tmp_path)
    check_that_a_rerun_completes_it(remote, tmp_path)


def test_a_transfer_that_is_refused_midway_leaves_no_list(
    s3: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "dataset")
    remote = s3_remote(s3)
    s3.fault = lambda method, _: (403, "AccessDenied") if method == "PUT" and len(s3.writes) > 3 else None
    with pytest.raises(ConfigError, match=r"denies access to s3://.*AccessDenied.*Allow ListBucket"):
        version_dataset(remote.config)
    assert remote.lists() == []
    assert "Traceback" not in capfd.readouterr().err
    s3.reset()
    version_dataset(remote.config)


def test_a_fetch_that_is_killed_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "dataset")
    remote = directory_remote(tmp_path)
    digest = version_dataset(remote.config)["md5"]
    old = sha256_tree(write_dataset(tmp_path / "other", seed=1))
    code = (
        "import os, signal\nfrom ocrmem.config import RunConfig\n"
        "from ocrmem.versioning import dataset_versions, open_dataset\n"
        "dataset_versions._verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"open_dataset(RunConfig.model_validate({{'version': {{'remote': {remote.config.version.remote!r}}}}}), "
        f"{digest!r}, 'other')\n"
    )
    assert command([sys.executable, "-c", code], tmp_path).returncode == -9
    assert sha256_tree(tmp_path / "other") == old
    open_dataset(remote.config, digest, "other")
    assert sha256_tree(tmp_path / "other") == sha256_tree(tmp_path / "dataset")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "other", "remote", "version", "version.json"]


# Opening


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Remote, str]:
    """A directory remote that holds the dataset, and its hash."""
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "dataset")
    remote = directory_remote(tmp_path)
    return remote, version_dataset(remote.config)["md5"]


def object_path(remote: Remote, oid: str) -> Path:
    assert remote.path
    return remote.path / "files" / "md5" / oid[:2] / oid[2:]


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_dataset_that_is_there_is_not_fetched(pushed: tuple[Remote, str], tmp_path: Path) -> None:
    remote, digest = pushed
    shutil.rmtree(tmp_path / "remote")
    assert open_dataset(remote.config, digest)["fetched"] == 0


def test_damaged_and_missing_objects_are_named_and_replace_nothing(pushed: tuple[Remote, str], tmp_path: Path) -> None:
    remote, digest = pushed
    listed = json.loads(object_path(remote, digest).read_bytes())
    (entry,) = [entry for entry in listed if entry["relpath"] == "manifest.json"]
    old = sha256_tree(write_dataset(tmp_path / "other", seed=1))
    whole = object_path(remote, entry["md5"]).read_bytes()
    overwrite(object_path(remote, entry["md5"]), whole[:-1])
    with pytest.raises(DataError, match=r"its copy of manifest\.json does not match the hash"):
        open_dataset(remote.config, digest, "other")
    object_path(remote, entry["md5"]).unlink()
    with pytest.raises(DataError, match=f"files of {digest} are missing there"):
        open_dataset(remote.config, digest, "other")
    overwrite(object_path(remote, digest), b"[]")
    with pytest.raises(DataError, match=r"its list of files .* does not match the hash"):
        open_dataset(remote.config, digest, "other")
    assert sha256_tree(tmp_path / "other") == old


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "a//b", "./a"])
def test_a_list_that_leads_outside_is_refused(pushed: tuple[Remote, str], tmp_path: Path, name: str) -> None:
    import hashlib

    remote, digest = pushed
    entry = json.loads(object_path(remote, digest).read_bytes())[0]
    content = json.dumps([{"md5": entry["md5"], "relpath": name}]).encode()
    oid = f"{hashlib.md5(content).hexdigest()}.dir"
    object_path(remote, oid).parent.mkdir(exist_ok=True)
    object_path(remote, oid).write_bytes(content)
    with pytest.raises(DataError, match="names a file outside the dataset"):
        open_dataset(remote.config, oid, "new")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("digest", "output", "message"),
    [
        ("nonsense", "new", "'nonsense' is not a dataset's hash"),
        ("../../etc", "new", "is not a dataset's hash"),
        ("0" * 32, "new", "holds no dataset 0000"),
        (None, "kept", "kept holds something other than a dataset"),
        (None, "kept/file", "holds something other than a dataset"),
    ],
)
def test_what_cannot_be_opened_says_why(
    pushed: tuple[Remote, str], tmp_path: Path, digest: str | None, output: str, message: str
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        open_dataset(pushed[0].config, digest or pushed[1], output)
    assert (tmp_path / "kept" / "file").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "new").exists()


# What is wrong beforehand


def refused_before_any_work(config: RunConfig, root: Path) -> str:
    """The error of a version run, which must come although there is no dataset to hash."""
    with pytest.raises(ConfigError) as caught:
        version_dataset(config)
    assert list(root.iterdir()) == []
    assert len(caught.value.problems) == 1
    return str(caught.value)


def of_bucket(endpoint: str, bucket: str = "no-such-bucket") -> RunConfig:
    return RunConfig.model_validate({"version": {"remote": f"s3://{bucket}/data", "endpoint_url": endpoint}})


def test_a_bucket_or_a_key_that_is_missing_is_reported_before_any_work(
    s3: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"there is no bucket 'no-such-bucket' at {s3.url}" in refused_before_any_work(of_bucket(s3.url), tmp_path)
    for code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        s3.fault = lambda *_, code=code: (403, code)
        told = refused_before_any_work(of_bucket(s3.url), tmp_path)
        assert code in told
        assert ("refuses the AWS credentials" in told) == (code != "AccessDenied")
    s3.fault = lambda *_: (500, "InternalError")
    assert "InternalError" in refused_before_any_work(of_bucket(s3.url), tmp_path)
    s3.reset()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "there are no AWS credentials" in refused_before_any_work(of_bucket(s3.url), tmp_path)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    told = refused_before_any_work(of_bucket(s3.url), tmp_path)
    assert "there are no AWS credentials for s3://no-such-bucket/data. Set AWS_ACCESS_KEY_ID" in told
    assert s3.calls == []


def test_a_remote_that_does_not_answer_is_reported_within_seconds(
    s3: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ocrmem.storage.ANSWER_SECONDS", 0.5)
    assert "http://127.0.0.1:9 does not answer" in refused_before_any_work(of_bucket("http://127.0.0.1:9"), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert f"{url} does not answer" in refused_before_any_work(of_bucket(url), tmp_path)


def test_a_directory_that_is_not_mounted_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = RunConfig.model_validate({"version": {"remote": str(tmp_path / "volume")}})
    assert f"{tmp_path}/volume is not there. Create it or mount it" in refused_before_any_work(config, tmp_path)
    assert "version.remote: is not set" in refused_before_any_work(RunConfig(), tmp_path)


def test_a_dataset_that_is_not_whole_is_not_pushed(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "dataset" / "pages" / "shard-00001.parquet").unlink()
    with pytest.raises(MissingInputError, match=r"shard-00001.*ocrmem render"):
        version_dataset(remote.config)
    shutil.rmtree(tmp_path / "dataset")
    with pytest.raises(MissingInputError, match="ocrmem render"):
        version_dataset(remote.config)
    assert remote.files() == []


# The command line


def test_the_command_says_one_object_and_no_secret_and_reads_no_configuration_of_dvc(
    s3: S3Service, tmp_path: Path
) -> None:
    write_dataset(tmp_path / "dataset")
    home = tmp_path / "home"
    (home / "dvc").mkdir(parents=True)
    (home / "dvc" / "config").write_text("[core]\n  remote = mine\n[nonsense", encoding="utf-8")
    remote = s3_remote(s3)
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    environment = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc")}
    ocrmem = [sys.executable, "-m", "ocrmem", "version", *version_settings(remote.config)]
    done = command([*ocrmem, "--json"], tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    opened = command([*ocrmem, "--open", result["md5"], "--output", "opened", "--quiet"], tmp_path, **environment)
    assert opened.returncode == 0, opened.stderr
    assert opened.stderr == ""
    assert sha256_tree(tmp_path / "opened") == sha256_tree(tmp_path / "dataset")
    written = "".join(path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file())
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret not in done.stdout + done.stderr + opened.stdout + written
    assert [path.name for path in home.rglob("*")] == ["dvc", "config"]
    assert not (tmp_path / ".dvc").exists()


def test_an_output_without_a_hash_to_open_is_refused(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    done = command([sys.executable, "-m", "ocrmem", "version", "--output", "new"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ocrmem version ")
    assert done.stderr.endswith("\n--output: is for --open. Add --open HASH, or leave it out.\n")

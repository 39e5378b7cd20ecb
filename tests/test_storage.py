"""Stores of packages: whole or not there, and a question beforehand that writes nothing that stays."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from support.s3 import S3Service

from ocrmem.errors import ConfigError
from ocrmem.files import sha256_tree
from ocrmem.storage import Store, store_at

pytest.importorskip("boto3")
LAST = "provenance.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.json", LAST, "sub/z.bin"):
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def bucket_of(s3: S3Service) -> str:
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3.make_bucket(name)
    return name


@pytest.fixture(params=["directory", "prefix", "whole bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        (tmp_path / "store").mkdir()
        return store_at(str(tmp_path / "store"), None, "register.store")
    s3: S3Service = request.getfixturevalue("s3")
    prefix = "/a/b" if request.param == "prefix" else ""
    return store_at(f"s3://{bucket_of(s3)}{prefix}", s3.url, "register.store")


def test_what_is_uploaded_comes_back_by_its_uri(store: Store, source: Path, tmp_path: Path, s3: S3Service) -> None:
    assert not store.holds(f"one/{LAST}")
    uri = store.upload(source, "one", last=LAST)
    assert uri == store.uri("one")
    assert store.holds(f"one/{LAST}")
    assert not store.holds(f"on/{LAST}")
    assert not store.holds("one/prov")  # a beginning of a name is none
    (tmp_path / "back").mkdir()
    place = store_at(uri, s3.url, "register.store")
    assert place.holds(LAST)
    place.download(tmp_path / "back")
    assert sha256_tree(tmp_path / "back") == sha256_tree(source)


def test_asking_leaves_nothing_behind(store: Store, s3: S3Service, tmp_path: Path) -> None:
    assert store.problem(write=False) is None
    assert s3.writes == []
    assert store.problem(write=True) is None
    if store.location.startswith("s3://"):
        assert s3.objects(store.location.split("/")[2]) == {}
    else:
        assert list((tmp_path / "store").iterdir()) == []


def test_an_upload_that_is_cut_off_has_not_the_file_that_says_it_is_whole(s3: S3Service, source: Path) -> None:
    bucket = bucket_of(s3)
    store = store_at(f"s3://{bucket}", s3.url, "register.store")
    s3.fault = lambda method, path: (403, "AccessDenied") if method == "PUT" and len(s3.writes) > 2 else None
    with pytest.raises(ConfigError, match=r"register\.store: .* denies access to"):
        store.upload(source, "one", last=LAST)
    assert sorted(s3.objects(bucket)) == ["one/a.json", "one/sub/z.bin"]
    assert not store.holds(f"one/{LAST}")


def test_keys_that_may_read_but_not_write_are_found_by_writing(s3: S3Service) -> None:
    store = store_at(f"s3://{bucket_of(s3)}", s3.url, "version.remote")
    s3.fault = lambda method, _: (403, "AccessDenied") if method == "PUT" else None
    assert store.problem(write=False) is None
    problem = store.problem(write=True)
    assert problem is not None
    assert "denies access" in problem.message
    # A key that may write but not delete is enough; one empty object of a fixed name stays.
    s3.fault = lambda method, _: (403, "AccessDenied") if method == "DELETE" else None
    assert store.problem(write=True) is None


def test_a_key_that_would_land_outside_is_left_out(s3: S3Service, tmp_path: Path) -> None:
    bucket = bucket_of(s3)
    for key in ("one/good", "one/../../evil"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"x")
    (tmp_path / "deep" / "back").mkdir(parents=True)
    store_at(f"s3://{bucket}/one", s3.url, "register.store").download(tmp_path / "deep" / "back")
    assert [path.name for path in (tmp_path / "deep" / "back").iterdir()] == ["good"]
    assert not (tmp_path / "evil").exists()


def test_nothing_to_download_says_so(store: Store, tmp_path: Path, s3: S3Service) -> None:
    (tmp_path / "back").mkdir()
    with pytest.raises(ConfigError, match=r"register\.store: "):
        store_at(store.uri("absent"), s3.url, "register.store").download(tmp_path / "back")


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    problem = store_at(str(tmp_path / "file"), None, "version.remote").problem(write=True)
    assert problem is not None
    assert "is not a directory" in problem.message

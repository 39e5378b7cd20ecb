"""A package is what its provenance says, its provenance says what it said, and no link leads out of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.registered import change_json, finished_run

from ocrmem.adapter import package_adapter
from ocrmem.errors import ModelError
from ocrmem.facts import PACKAGE_FILES, PROVENANCE
from ocrmem.json_files import with_sha256
from ocrmem.package import is_package, verify_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package_adapter(finished_run(tmp_path), tmp_path / "package")
    return tmp_path / "package"


@pytest.mark.parametrize("name", sorted(set(PACKAGE_FILES) - {PROVENANCE}))
def test_a_changed_file_is_named(package: Path, name: str) -> None:
    path = package / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match=rf"not what its provenance says: {name}") as caught:
        verify_package(package)
    assert len(caught.value.problems) == 1


def test_every_wrong_file_is_named_at_once(package: Path) -> None:
    (package / "README.md").unlink()
    (package / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        verify_package(package)
    assert {Path(problem.place).name for problem in caught.value.problems} == {"README.md", "config.json"}


def test_no_bit_of_a_package_can_change(package: Path) -> None:
    for name in PACKAGE_FILES:
        path = package / name
        content = path.read_bytes()
        # Every byte of a small file takes a while; a prime step meets keys, values, digits and white space.
        for place in range(0, len(content), 13):
            path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
            with pytest.raises(ModelError):
                verify_package(package)
        path.write_bytes(content)
    verify_package(package)


@pytest.mark.parametrize(
    "content", ["{", "[]", "null", "1", '"text"', '{"files": {}}', "[" * 100_000, "9" * 5_000, "\xff"]
)
def test_a_broken_provenance_is_refused_by_name(package: Path, content: str) -> None:
    (package / PROVENANCE).write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"provenance\.json: .*Download the package again"):
        verify_package(package)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter_sha256": "0" * 64}, "another adapter_sha256"),
        ({"metrics": {"memory": {"loss": 0.0, "recall": 1.0}}}, "its fields give"),
        ({"data": {"source_sha256": "0" * 64, "dataset_manifest_sha256": "0" * 64}}, "its fields give"),
        ({"gradient_report_sha256": "0" * 64}, "its fields give"),
        ({"files": {"../config.json": "0" * 64}}, "and not just"),
        ({"files": {}}, "and not just"),
        ({"params": []}, "params: Input should be"),
        ({"format": "2"}, "format: Input should be"),
    ],
)
def test_a_field_changed_with_the_hash_of_the_file_is_found_by_the_others(
    package: Path, change: dict, message: str
) -> None:
    change_json(package / PROVENANCE, **change)
    with pytest.raises(ModelError, match=message):
        verify_package(package)


def test_a_file_cannot_be_dropped_from_the_list_and_replaced(package: Path) -> None:
    files = json.loads((package / PROVENANCE).read_text(encoding="utf-8"))["files"]
    change_json(package / PROVENANCE, files={name: files[name] for name in files if name != "README.md"})
    (package / "README.md").write_text("another card", encoding="utf-8")
    with pytest.raises(ModelError, match=r"provenance\.json: lists .*README\.md"):
        verify_package(package)


def test_a_provenance_without_its_own_hash_says_what_to_do(package: Path) -> None:
    provenance = json.loads((package / PROVENANCE).read_text(encoding="utf-8"))
    del provenance["sha256"]
    (package / PROVENANCE).write_text(json.dumps(provenance), encoding="utf-8")
    with pytest.raises(ModelError, match=r"an earlier ocrmem wrote it.*`ocrmem register`"):
        verify_package(package)


def test_another_package_than_the_registry_names_is_refused(package: Path) -> None:
    own = verify_package(package)["package_sha256"]
    assert verify_package(package, own)["package_sha256"] == own
    with pytest.raises(ModelError, match="and 000000000000 was wanted"):
        verify_package(package, "0" * 64)


@pytest.mark.parametrize("name", PACKAGE_FILES)
@pytest.mark.parametrize(
    "link", [lambda place: place.name, lambda place: place.resolve()], ids=["relative", "absolute"]
)
def test_a_link_out_of_a_package_is_not_followed(package: Path, name: str, link: Callable[[Path], Path | str]) -> None:
    outside = package.parent / "elsewhere"
    shutil.move(package / name, outside)
    (package / name).symlink_to(Path("..") / link(outside))
    with pytest.raises(ModelError, match=rf"{name}: is a link out of the package, to .*elsewhere"):
        verify_package(package)


def test_a_link_that_leads_to_itself_is_no_file(package: Path) -> None:
    (package / "README.md").unlink()
    (package / "README.md").symlink_to("README.md")
    with pytest.raises(ModelError, match="is not there, although"):
        verify_package(package)


def test_a_bare_adapter_is_no_package_and_a_package_without_provenance_is_damaged(package: Path) -> None:
    adapter = package.parent / "adapter"
    assert not is_package(adapter)
    assert is_package(package)
    with pytest.raises(ModelError, match=r"provenance\.json: is not there"):
        verify_package(adapter)
    (package / PROVENANCE).unlink()
    assert is_package(package)


def test_the_hash_of_a_file_does_not_depend_on_the_order_of_its_fields_or_its_white_space(package: Path) -> None:
    path = package / PROVENANCE
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(dict(sorted(value.items(), reverse=True))), encoding="utf-8")
    verify_package(package)
    as_written, as_read = {"a": (1, 2), "b": {3: 4}}, {"b": {"3": 4}, "a": [1, 2]}
    assert with_sha256(as_written)["sha256"] == with_sha256(as_read)["sha256"]

"""CHANGELOG, CONTRIBUTING, SECURITY and the forms of issues: what they name is there, and GitHub can read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_and_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target
    for named in re.findall(r"`((?:ocrmem|tests|docs)/[\w/.]+)`", text):
        assert (ROOT / named).exists(), named
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in re.findall(r"^    make ([a-z ]+?)(?:  |$)", text, re.M):
        for target in line.split():
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_versions_of_the_changelog_fall_and_have_dates() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *versions = re.findall(r"^## (.+)$", text, re.M)
    assert first == "Unreleased"
    numbers = [
        tuple(map(int, re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - \d{4}-\d\d-\d\d", line).groups())) for line in versions
    ]
    assert numbers
    assert numbers == sorted(numbers, reverse=True)
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_has_what_github_asks_for(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert {part["type"] for part in form["body"]} <= {"markdown", "input", "textarea", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field["validations"]["required"] for field in fields)

"""docs/ as a site: every page in the navigation once, and no link that leads nowhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from support.checkout import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def settings() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return found


def entries(nav: Any) -> Iterator[str]:
    """The pages of a navigation, section by section."""
    for entry in nav:
        for target in [entry] if isinstance(entry, str) else entry.values():
            yield from ([target] if isinstance(target, str) else entries(target))


def prose(page: Path) -> str:
    """A page's text without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#{1,6} (.+)$", text, re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain}


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(entries(settings()["nav"])) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_site_needs_nothing_of_others() -> None:
    site = settings()
    assert site["theme"]["font"] is False
    assert site["strict"] is True
    assert [name for plugin in site["plugins"] for name in plugin] == ["search"]
    assert not {"extra_javascript", "extra_css"} & site.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_picture_is_shown_and_small() -> None:
    shown = {Path(link).name for page in PAGES for link in _LINK.findall(prose(page)) if "images/" in link}
    pictures = list((DOCS / "images").iterdir())
    assert {path.name for path in pictures} == shown
    assert [path.name for path in pictures if path.stat().st_size > 300_000] == []


def test_the_site_builds_strictly_and_without_addresses_of_others(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<(?:link|script)[^>]*(?:href|src)=\"(?:https?:)?//[^\"]*", page) == []
    assert (tmp_path / "search" / "search_index.json").is_file()

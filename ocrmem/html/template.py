"""From a template to one HTML file that loads nothing; all text in it is escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup


def render_template(template: Path, *, script: Path | None = None, **values: Any) -> str:
    """Return the HTML of a template, which may extend base.html.jinja or include style.css from beside this module.

    Args:
        script: JavaScript for base.html.jinja, whose policy lets the browser run this and no other.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not among ``values``.
    """
    code = script.read_text(encoding="utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template(template.name)
    return page.render(script=Markup(code), script_hash=Markup(f"sha256-{digest}"), **values)


def png_address(png: bytes) -> str:
    """Return a PNG as the address of a picture: a ``data:`` URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"

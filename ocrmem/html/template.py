"""From a template to one HTML file that loads nothing; all text in it is escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2


def render_template(template: Path, **values: Any) -> str:
    """Return the HTML of a template, which may include style.css from beside this module.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not among ``values``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template.name).render(values)


def png_address(png: bytes) -> str:
    """Return a PNG as the address of a picture: a ``data:`` URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"

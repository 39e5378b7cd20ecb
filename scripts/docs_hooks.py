"""What `make docs` does otherwise than mkdocs by itself."""

from __future__ import annotations

import re
from typing import Any

from pymdownx.slugs import slugify

# [text](../configs/file.yaml) leads to a file of the checkout, which a site does not have; its text stays.
_OUT_OF_DOCS = re.compile(r"\[([^]]+)\]\(\.\./[^)]+\)")


def on_config(config: Any) -> Any:
    """Name headings as GitHub does, those in Chinese too: the same links work in both."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page without links to files of the checkout."""
    return _OUT_OF_DOCS.sub(r"\1", markdown)

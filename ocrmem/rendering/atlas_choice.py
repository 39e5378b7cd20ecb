"""The atlas that the settings name: Unifont's, or one made of a font."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ocrmem.errors import ConfigError
from ocrmem.rendering.atlas import Atlas, unifont_data


@cache
def load_atlas(spec: str = "unifont") -> Atlas:
    """Return the atlas that `render.atlas` names; it is loaded once a process.

    Args:
        spec: "unifont", or the path of a .ttf, .otf or .ttc font. What that font lacks is drawn from Unifont.

    Raises:
        ConfigError: the name is neither, or the file is missing or not a usable font.
        DataError: the vendored atlas is damaged.
    """
    if spec == "unifont":
        return Atlas(unifont_data())
    if Path(spec).suffix.lower() not in {".ttf", ".otf", ".ttc"}:
        raise ConfigError.of(
            "render.atlas", f"{spec!r} is not an atlas", 'Write "unifont" or the path of a .ttf or .otf font'
        )
    try:
        # Pillow and fontTools are optional: only pages drawn with another font need them.
        from ocrmem.rendering.truetype import TrueTypeAtlas
    except ImportError as error:
        raise ConfigError.of(
            "render.atlas",
            f"{spec!r} needs Pillow and fontTools ({error})",
            "Run `pip install 'ocrmem[fonts]'`, or use render.atlas: unifont",
        ) from error
    return TrueTypeAtlas(Path(spec))

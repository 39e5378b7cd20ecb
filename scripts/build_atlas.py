"""Build ocrmem/rendering/data/unifont.npz from GNU Unifont.

    python scripts/build_atlas.py [--fonts DIRECTORY] [--output FILE]

DIRECTORY holds unifont.otf and unifont_upper.otf of Debian's package fonts-unifont 1:15.0.01-2
(`apt-get install fonts-unifont` puts them in /usr/share/fonts/opentype/unifont). Their sha256 is pinned:
other fonts give other cells, and pages drawn with other cells are other pages. Needs the extra `fonts`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import ImageFont

from ocrmem.errors import DataError, OcrMemError
from ocrmem.files import sha256_file, write_bytes
from ocrmem.rendering.atlas import UNIFONT, AtlasData
from ocrmem.rendering.rasterise import cells_of, has_own_cell

DEFAULT_FONTS = Path("/usr/share/fonts/opentype/unifont")
FONTS = {
    "unifont.otf": "db1960227adcb14640063e7384fdcd2867aaf819d9ca4866bca289d4db9a9f67",
    "unifont_upper.otf": "29adae95e09d12c0169319669f82ae814dcafef029526c7c1304d07dd0e6fe1c",
}
NAME = "unifont-15.0.01"
PIXELS = 16
BASELINE = 14  # px below the top of the cell; Unifont's ascent
# Blank in the font, and blank on purpose; every other blank glyph counts as missing.
SPACES = (0x20, 0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)


def build(fonts: Path) -> AtlasData:
    """Rasterise every glyph of both fonts.

    Raises:
        DataError: a font is not there, or is not the pinned one.
    """
    glyphs: dict[int, tuple[np.ndarray, bool]] = {}
    for name, expected in FONTS.items():
        path = fonts / name
        if not path.is_file():
            raise DataError.of(str(path), "is not there", "Install fonts-unifont, or pass --fonts DIRECTORY")
        if (found := sha256_file(path)) != expected:
            raise DataError.of(str(path), f"has sha256 {found}, pinned is {expected}", "Use fonts-unifont 1:15.0.01-2")
        table = TTFont(path, lazy=True)
        per_pixel = table["head"].unitsPerEm / PIXELS
        font = ImageFont.truetype(str(path), PIXELS, layout_engine=ImageFont.Layout.BASIC)
        for code_point, glyph in sorted(table.getBestCmap().items()):
            if code_point in glyphs or not has_own_cell(code_point):
                continue
            advance = round(table["hmtx"][glyph][0] / per_pixel)
            cells = cells_of(font, chr(code_point), advance, BASELINE)
            if cells is None:
                raise DataError.of(f"U+{code_point:04X}", "does not fit two cells", "Use the pinned font")
            if cells.any() or code_point in SPACES:
                glyphs[code_point] = (cells, advance == 0)
    code_points = np.array(sorted(glyphs), np.uint32)
    return AtlasData(
        name=NAME,
        code_points=code_points,
        widths=np.array([len(glyphs[c][0]) for c in code_points.tolist()], np.uint8),
        marks=np.array([glyphs[c][1] for c in code_points.tolist()], bool),
        cells=np.concatenate([glyphs[c][0] for c in code_points.tolist()]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the vendored glyph atlas from GNU Unifont.")
    parser.add_argument("--fonts", type=Path, default=DEFAULT_FONTS)
    parser.add_argument("--output", type=Path, default=UNIFONT)
    arguments = parser.parse_args()
    try:
        data = build(arguments.fonts)
    except OcrMemError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    content = data.to_bytes()
    write_bytes(arguments.output, content)
    print(f"{arguments.output}: {data.version}, {len(data.code_points)} code points, {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

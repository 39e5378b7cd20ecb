"""Small charts as inline SVG: no library, no request, and colours that follow the page's light or dark theme.

Every function returns markup whose texts are escaped; ``title`` is what screen readers read aloud. Colours are CSS
custom properties of style.css, beside this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 440  # px: about that of a card in a narrow window, so that texts keep their size there
_ROW = 42


def bar_chart(values: Sequence[tuple[str, float]], *, title: str, top: float | None = None) -> Markup:
    """Draw horizontal bars, one a row, the first in the accent colour.

    Args:
        values: label and length; a length that is not finite is written but not drawn.
        top: the value of a full-width bar; None: the largest.
    """
    longest = top or max([value for _, value in values if math.isfinite(value)], default=0.0) or 1.0
    room = WIDTH - 64
    parts = []
    for row, (label, value) in enumerate(values):
        y = row * _ROW
        length = max(0.0, min(value / longest, 1.0)) * room if math.isfinite(value) else 0.0
        parts += [
            _text(0, y + 14, label),
            _bar("track", 0, y + 20, room, 14, 3),
            _bar("bar" if row else "bar first", 0, y + 20, length, 14, 3),
            _text(room + 8, y + 32, f"{value:.3f}", kind="value"),
        ]
    return _svg(parts, len(values) * _ROW, title)


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    title: str,
    unit: str,
    marks: Sequence[tuple[str, float]] = (),
    single: bool = False,
) -> Markup:
    """Draw vertical bars over equal bins, whose ``edges`` are one more than ``counts``; ``unit`` is of the edges.

    Args:
        marks: label and value of vertical lines; one that lies outside the bins is not drawn.
        single: each bin holds one value only, its lower edge, which is then written below it.
    """
    marks = [(label, value) for label, value in marks if edges[0] <= value <= edges[-1]]
    height, base, left, top = 190, 150, 12, 36 if marks else 22
    room = WIDTH - 2 * left
    step = room / max(1, len(counts))
    most = max(counts, default=0) or 1
    parts = []
    for index, count in enumerate(counts):
        tall = count / most * (base - top)
        x = left + index * step
        parts.append(_bar("bar first", x + 1, base - tall, step - 2, tall, 2))
        if count:
            parts.append(_text(x + step / 2, base - tall - 5, str(count), "middle", kind="value"))
    parts.append(_line(left, base, WIDTH - left, base, "axis"))
    ends = ((0, "start"), (len(counts) // 2, "middle"), (len(counts), "end"))
    for index, anchor in [(index, "middle") for index in range(len(counts))] if single else ends:
        parts.append(_text(left + (index + single / 2) * step, base + 18, _short(edges[index]), anchor))
    for label, value in marks:
        x = left + (value - edges[0]) / (edges[-1] - edges[0]) * room
        parts.append(_line(x, 16, x, base, "mark"))
        parts.append(_text(x, 12, label, "end" if x > WIDTH / 2 else "start"))
    parts.append(_text(WIDTH / 2, base + 36, unit, "middle"))
    return _svg(parts, height, title)


def line_chart(points: Sequence[tuple[float, float]], *, title: str, x_name: str) -> Markup:
    """Draw a line through points (x, y) in the order given, without those that are not finite.

    Raises:
        ValueError: fewer than two finite points.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) < 2:
        raise ValueError("a line needs two finite points")
    height, left, right, top, base = 190, 52, 12, 12, 150
    xs, ys = zip(*finite, strict=True)
    low_x, low_y = min(xs), min(0.0, *ys)
    span_x, span_y = (max(xs) - low_x) or 1.0, (max(ys) - low_y) or 1.0
    path = " ".join(
        f"{left + (x - low_x) / span_x * (WIDTH - left - right):.1f},{base - (y - low_y) / span_y * (base - top):.1f}"
        for x, y in finite
    )
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = base - share * (base - top)
        parts.append(_line(left, y, WIDTH - right, y, "axis" if share == 0 else "grid"))
        parts.append(_text(left - 8, y + 4, _short(low_y + share * span_y), "end"))
    parts.append(_text(left, base + 18, _short(low_x), "start"))
    parts.append(_text(WIDTH - right, base + 18, _short(max(xs)), "end"))
    parts.append(_text((left + WIDTH) / 2, base + 36, x_name, "middle"))
    parts.append(f'<polyline class="curve" points="{path}"/>')
    return _svg(parts, height, title)


def _svg(parts: Sequence[str], height: int, title: str) -> Markup:
    return Markup(  # every part above is a number or escaped
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "", *, kind: str = "label") -> str:
    placed = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}" x="{round(x, 1)}" y="{round(y, 1)}"{placed}>{escape(text)}</text>'


def _bar(kind: str, x: float, y: float, width: float, height: float, radius: int) -> str:
    place = f'x="{round(x, 1)}" y="{round(y, 1)}" width="{round(width, 1)}" height="{round(height, 1)}"'
    return f'<rect class="{kind}" {place} rx="{radius}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"

"""Pages whose bits must never change by accident: a changed hash means every dataset is another one."""

from __future__ import annotations

import pytest

from ocrmem.config import RenderSection
from ocrmem.rendering import load_atlas, render_text

TEXTS = {
    "english": 20
    * (
        "user: Where did we park the car on Tuesday?\n"
        "assistant: On level 3, bay 41, next to the lift. You said you would forget, so I wrote it down.\n"
    ),
    "chinese": 20
    * (
        "用户：请问图书馆几点关门？\n助手：平日晚上九点半，周末下午五点。记得带上借书证——门口要刷卡（学生证也可以）。\n"
    ),
    "emoji": 12 * "user: 😀😀 great news 🎉❤\ufe0f 👩\u200d🚀 🇳🇴 👍🏽\n",
    "code": 9
    * ('def area(r: float) -> float:\n\t"""Circle."""\n\treturn 3.14159 * r ** 2  # πr²\r\n\n\tif x[0] != {"a": 1}:\n'),
    "mixed": 15
    * ("e\u0301 か\u3099 שלום مرحبا नमस्ते ไทย 한국어 \ud800\ue000\U00020000\x1b[0m ∑∫√ ½ ↵ \u3000|\u200b|\u00ad|"),
}
REAL = RenderSection()
TINY = RenderSection(page_size=256, token_size=32, line_height=32)
FLOW = RenderSection(page_size=640, newlines="flow", tab_width=8)
BOXED = RenderSection(align="token")
EIGHT = RenderSection(page_size=512, line_height=64, align="token")  # characters a token
LAYOUTS = {"real": REAL, "tiny": TINY, "flow": FLOW, "boxed": BOXED, "eight": EIGHT}
FIRST_AND_LAST: dict[tuple[str, str], tuple[int, str, str]] = {
    ("english", "real"): (1, "1fbae0dab0f68028", "1fbae0dab0f68028"),
    ("english", "tiny"): (15, "53d04b80a29e3e7f", "75828c323bff4c01"),
    ("english", "flow"): (1, "0c7cf25cabeee160", "0c7cf25cabeee160"),
    ("chinese", "real"): (1, "9d325d8c00bffbdf", "9d325d8c00bffbdf"),
    ("chinese", "tiny"): (10, "b002fa72223e212c", "b002fa72223e212c"),
    ("chinese", "flow"): (1, "69387f6f85de751c", "69387f6f85de751c"),
    ("emoji", "real"): (1, "e5c4e773fd5daa55", "e5c4e773fd5daa55"),
    ("emoji", "tiny"): (3, "99366c8ff1157d3a", "99366c8ff1157d3a"),
    ("emoji", "flow"): (1, "bee991e3b739fde0", "bee991e3b739fde0"),
    ("code", "real"): (1, "2b9fdac3a0a429d1", "2b9fdac3a0a429d1"),
    ("code", "tiny"): (7, "ae90d0bcf6ef9131", "a426f3f251467d2a"),
    ("code", "flow"): (1, "2a7ff68f0f44f682", "2a7ff68f0f44f682"),
    ("mixed", "real"): (1, "9108c1b5d44b7fc6", "9108c1b5d44b7fc6"),
    ("mixed", "tiny"): (6, "69dd7db9d3c9b395", "7bc3d77f4988583e"),
    ("mixed", "flow"): (1, "d353ea2588ed4b44", "d353ea2588ed4b44"),
    ("english", "boxed"): (1, "68e7554eeafe2746", "68e7554eeafe2746"),
    ("english", "eight"): (7, "06b56191e221f4a7", "3b2c73063a2ac17d"),
    ("chinese", "boxed"): (1, "cf556565aff88d14", "cf556565aff88d14"),
    ("chinese", "eight"): (5, "822feea53a849bb8", "d4deb1b827be0b92"),
    ("emoji", "boxed"): (1, "a34bcbbe54167973", "a34bcbbe54167973"),
    ("emoji", "eight"): (2, "b98c84e6991106c9", "fd0ad8e906a76826"),
    ("code", "boxed"): (1, "43975ace22a8979e", "43975ace22a8979e"),
    ("code", "eight"): (3, "b806f72749391fa8", "3fde9371346a9abf"),
    ("mixed", "boxed"): (1, "8ba5c2317f7d6ff6", "8ba5c2317f7d6ff6"),
    ("mixed", "eight"): (4, "8c64e35daa21316e", "71256c5a2195971d"),
}


@pytest.mark.parametrize(("name", "layout"), FIRST_AND_LAST)
def test_pages_are_the_recorded_ones(name: str, layout: str) -> None:
    hashes = [page.hash[:16] for page in render_text(TEXTS[name], LAYOUTS[layout], load_atlas()).pages]
    assert (len(hashes), hashes[0], hashes[-1]) == FIRST_AND_LAST[name, layout]


def test_every_text_is_recorded_in_every_layout() -> None:
    assert set(FIRST_AND_LAST) == {(name, layout) for name in TEXTS for layout in LAYOUTS}

"""Prose and chat, English and Chinese: this project's own sentences, drawn by a fixed seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

ENGLISH = (
    "The ferry left late that morning because the fog had not lifted from the harbour.",
    "Nobody on deck seemed to mind; they leaned on the rail and listened to the bell.",
    "She had packed in a hurry and only now remembered the letter on the kitchen table.",
    "By noon the coast was a thin grey line, and then it was nothing at all.",
    '"You will want a warmer coat," said the man beside her, who had crossed many times before.',
    "The engine changed its note, slowed, and for a moment there was no sound but water.",
    "It is difficult to explain to someone from the city how dark an island can be at night.",
    "Every house kept a lamp in the window, partly for the boats and partly out of habit.",
    "He wrote the figures in a small blue notebook: 14 crates, 3 of them damaged, none missing.",
    "In spring the road washes out, and the post comes on foot, when it comes.",
    "Later they would disagree about who had seen the light first, and how long it had lasted.",
    "The schoolteacher, who was also the librarian, lent her books two at a time.",
)
CHAT = (
    "Can you remind me what we decided?",
    "Sure. The meeting moved to Thursday at 15:30, room 204.",
    "Thanks!",
    "How do I undo the last commit but keep my changes?",
    "Use `git reset --soft HEAD~1`; your files stay as they are.",
    "My sister's flight lands at 6, so dinner is at eight.",
    "Noted: dinner at eight.",
    "ok",
    "Does the blue one come in a larger size?",
    "It does, but only from the second shop, for $42.50 with delivery.",
    "Please make the tone a bit friendlier, and shorter if you can.",
)
CHINESE = (
    "那天早晨有雾，渡船比平时晚开了一个钟头。",
    "甲板上的人并不着急，他们靠着栏杆，听远处的钟声。",
    "她走得匆忙，这时才想起那封信还放在厨房的桌子上。",
    "到了中午，海岸只剩下一条灰色的细线，后来连这条线也看不见了。",
    "“岛上风大，你应该多带一件衣服。”旁边的老人说。",
    "机器的声音慢慢低下去，有一会儿，四周只听得见水声。",
    "城里来的人很难想象，岛上的夜晚究竟有多黑。",
    "每一家都在窗前点一盏灯，一半是为了船，一半是因为习惯。",
    "他在蓝色的小本子上记下：货物十四箱，损坏三箱，没有遗失。",
    "春天路常常被水冲断，邮差只好步行，来不来全看天气。",
    "后来谈起这件事，大家都说不清是谁先看见那道光的。",
    "学校的老师也管图书馆，每次借给她两本书。",
)
CHINESE_CHAT = (
    "我们上次是怎么定的？",
    "会议改到星期四下午三点半，204 房间。",
    "谢谢！",
    "怎么撤销最后一次提交，但是保留修改？",
    "用 `git reset --soft HEAD~1`，文件不会变。",
    "我妹妹六点落地，所以晚饭改到八点。",
    "记下了：晚饭八点。",
    "好",
    "蓝色的那件有大一号的吗？",
    "有，不过只有第二家店有，含运费 298 元。",
    "语气再亲切一点，能短就短。",
)


@dataclass(frozen=True)
class Text:
    """A text to be drawn."""

    name: str
    content: str
    chinese: bool


def texts(characters: int) -> list[Text]:
    """Prose and chat in both languages, of about so many characters each."""
    return [
        Text("English prose", _paragraphs(ENGLISH, characters, " ", (5, 9)), False),
        Text("English chat", _chat(CHAT, characters), False),
        Text("Chinese prose", _paragraphs(CHINESE, characters, "", (5, 9)), True),
        Text("Chinese chat", _chat(CHINESE_CHAT, characters), True),
    ]


def _paragraphs(sentences: tuple[str, ...], characters: int, space: str, length: tuple[int, int]) -> str:
    generator, parts, total = random.Random(0), [], 0
    while total < characters:
        parts.append(space.join(generator.choices(sentences, k=generator.randint(*length))) + "\n")
        total += len(parts[-1])
    return "".join(parts)


def _chat(turns: tuple[str, ...], characters: int) -> str:
    generator, parts, total = random.Random(0), [], 0
    while total < characters:
        parts.append(("user: ", "assistant: ")[len(parts) % 2] + generator.choice(turns) + "\n")
        total += len(parts[-1])
    return "".join(parts)

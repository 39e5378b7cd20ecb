"""Whether an answer is trained: the switches on messages that trainers' files have.

``weight`` is OpenAI's and Mistral's, ``train`` and ``train_on_turn`` axolotl's, ``loss`` and ``loss_scale`` those of
ms-swift and XTuner, ``loss_weight`` LLaMA-Factory's, ``loss_mask`` and ``step_loss_mask`` those of verl and slime.
``mask`` says the one in some files and the opposite in others, and ``train_detail`` trains parts of an answer, so both
are refused.
"""

from __future__ import annotations

from typing import Any

from ocrmem.conversations.content import ContentFault
from ocrmem.errors import shown

SWITCHES = (
    "weight",
    "train",
    "train_on_turn",
    "loss",
    "loss_scale",
    "loss_weight",
    "loss_mask",
    "step_loss_mask",
)
_REMEDY = "Write 0 (no sample from it) or 1"
_REFUSED = {
    "mask": ("which says in some files that it is trained, in others that it is not", "Write weight 0 or 1 instead"),
    "train_detail": ("and answers are trained whole", "Remove it, or write weight 0"),
}


def switch(key: str, given: Any) -> int:
    """Return what a switch says: 0 or 1.

    Raises:
        ContentFault: it says neither.
    """
    flag = isinstance(given, bool)
    if (flag and key == "weight") or (not flag and given not in (0, 1)):
        raise ContentFault(f"has the {key} {shown(given)}", _REMEDY)
    return int(given)


def answer_weight(item: dict[str, Any]) -> int:
    """Return the weight of an assistant's message: 0 if no sample is made of it, otherwise 1.

    Raises:
        ContentFault: a switch cannot be honoured, or two of them contradict each other.
    """
    for key, (why, remedy) in _REFUSED.items():
        if item.get(key) not in (None, []):
            raise ContentFault(f'has "{key}": {shown(item[key])}, {why}', remedy)
    given = {key: switch(key, item[key]) for key in SWITCHES if item.get(key) is not None}
    if len(set(given.values())) > 1:
        raise ContentFault(f"has {' and '.join(given)} that contradict each other", "Keep the one that is meant")
    return min(given.values(), default=1)

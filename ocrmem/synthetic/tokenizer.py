"""The tiny model's tokenizer: one token a word of the tiny dialect, made in code, nothing downloaded.

It has the special tokens and the chat template (ChatML) of Qwen3, so what works on it works on the real ones.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split
from transformers import PreTrainedTokenizerFast

from ocrmem.families import FAMILIES
from ocrmem.families.tiny import POSITIONS, TINY
from ocrmem.synthetic.tiny import ASK, FILLERS, KEYS, LABELS, VALUES

UNKNOWN = "<unk>"
PAD = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
MARKS = FAMILIES[TINY].marks[0]
NEWLINE = "\n"

_SPECIAL = (UNKNOWN, PAD, TURN_START, TURN_END, MARKS.start, MARKS.end, MARKS.placeholder)
VOCABULARY = (*_SPECIAL, NEWLINE, *LABELS, *LABELS.values(), ASK, *KEYS, *VALUES, *FILLERS)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Build it: words split at white space, newlines kept, what is not in the dialect is ``<unk>``."""
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    spaces, newlines = Split(Regex(r"[^\S\n]+"), behavior="removed"), Split(NEWLINE, behavior="isolated")
    words.pre_tokenizer = Sequence([spaces, newlines])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START, TURN_END, MARKS.start, MARKS.end, MARKS.placeholder],
        chat_template=CHAT_TEMPLATE,
        padding_side="right",
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )

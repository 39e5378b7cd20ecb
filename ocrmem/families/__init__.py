"""Base-model families: what differs between language models, one file each. Nothing here imports torch.

To add a family:

1. Write ``ocrmem/families/NAME.py`` with a class that inherits `Family` and changes what differs: ``marks`` (three
   tokens of the vocabulary, or several such threes), ``template_options`` (the switch against thinking),
   ``tool_call``, ``published`` (the config.json of models known by their hub name), ``attention`` (the layers that LoRA
   changes) and ``head_norms`` or ``shape`` (what `ocrmem train --plan` needs).
2. Add it to ``FAMILIES`` in registry.py under the ``model_type`` of its config.json.

::

    class Other(Family):
        marks = (Marks("<memory>", "<token>", "</memory>"),)

        def shape(self, config):
            return Shape.of(config, head_norms=False)

A base model of any other family works with the defaults as long as its vocabulary holds the marks of some family and
its tokenizer has a chat template; only `ocrmem train --plan` refuses it.
"""

from ocrmem.families.family import DEFAULT, EXAMPLE, MARK_TOKENS, VISION, Family, Marks, Shape, with_marks
from ocrmem.families.registry import FAMILIES, family_of, known_positions, local_config, published_config, size_faults
from ocrmem.families.tiny import TINY

__all__ = [
    "DEFAULT",
    "EXAMPLE",
    "FAMILIES",
    "MARK_TOKENS",
    "TINY",
    "VISION",
    "Family",
    "Marks",
    "Shape",
    "family_of",
    "known_positions",
    "local_config",
    "published_config",
    "size_faults",
    "with_marks",
]

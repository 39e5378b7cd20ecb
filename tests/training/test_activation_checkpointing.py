"""train.activation_checkpointing: the same training with fewer activations."""

from __future__ import annotations

import pytest
from support.models import small_settings
from support.training import logged, standalone_trainer

from ocrmem.config import RunConfig
from ocrmem.training.arguments import AdapterTrainingArguments


@pytest.mark.parametrize("wanted", [False, True])
def test_the_setting_reaches_the_trainer(tmp_path, wanted):
    config = RunConfig.from_dict(small_settings(tmp_path, train={"activation_checkpointing": wanted}))
    assert AdapterTrainingArguments.from_run_config(config).activation_checkpointing is wanted


def test_layers_are_computed_twice_and_the_losses_stay(tmp_path):
    losses, calls = [], []
    for wanted in (False, True):
        trainer = standalone_trainer(tmp_path / str(wanted), activation_checkpointing=wanted, save_strategy="no")
        seen: list[int] = []
        norm = trainer.model.base_llm_model.model.layers[0].input_layernorm
        norm.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        trainer.train()
        losses.append(logged(trainer))
        calls.append(len(seen))
    assert losses[0] == losses[1]
    assert calls[1] == 2 * calls[0] > 0

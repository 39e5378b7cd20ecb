"""Faulty fields: each is named with what would be right, never with a message of pydantic's alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.run_settings import REAL, real

from ocrmem.config import RunConfig
from ocrmem.config.old_names import OLD_NAMES, WITHOUT_SETTING
from ocrmem.config.rules.rule import FIELDS
from ocrmem.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__max_steps": 1}, "model.max_steps: is an unknown field. Did you mean train.max_steps?"),
        ({"train__learningrate": 1}, "Did you mean train.learning_rate?"),
        ({"train__lr": 1}, "train.lr: is an unknown field. Here it is train.learning_rate"),
        ({"train__batch_size": 2}, "Here it is train.per_device_batch_size"),
        ({"train__num_epochs": 2}, "Here it is train.num_train_epochs"),
        ({"train__eval_data_path": "x"}, "Here it is data.path: a directory, in which eval*.jsonl is held out"),
        ({"data__eval_data": "x"}, "Here it is data.path"),
        ({"train__eval_strategy": "steps"}, "train.eval_steps: steps alone say when"),
        ({"model__base_llm_model_name": "x"}, "Here it is model.base_model_name"),
        ({"train__save_adapter_only": True}, "Remove it: checkpoints and adapters never hold frozen weights"),
        ({"train__target_loss": 0.01}, "train.target_loss: is an unknown field. Remove it: no run is repeated"),
        ({"train__max_attempts": 4}, "train.stages, align before answer, took its place"),
        ({"modle__x": 1}, "modle: is an unknown section. Did you mean model?"),
        ({"registry__x": 1}, "registry: is an unknown section. Did you mean register?"),
        ({"train__max_steps": "many"}, "train.max_steps: is 'many'. Give a whole number"),
        ({"train__max_steps": 1.5}, "train.max_steps: is 1.5. Give a whole number"),
        ({"train__max_steps": 0}, "train.max_steps: is 0. Give a number above 0"),
        ({"train__max_steps": True}, "train.max_steps: is true. Give a number"),
        ({"train__learning_rate": True}, "train.learning_rate: is true. Give a number"),
        ({"train__global_batch_size": False}, "train.global_batch_size: is false. Give a number"),
        ({"train__max_steps": None}, "train.max_steps: is empty. Give a whole number"),
        ({"train__max_steps": [1]}, "train.max_steps: is a list. Give a whole number"),
        ({"train__warmup_steps": -1}, "train.warmup_steps: is -1. Give a number at least 0"),
        ({"train__learning_rate": "fast"}, "train.learning_rate: is 'fast'. Give a number"),
        ({"train__learning_rate": float("inf")}, "train.learning_rate: is inf. Give a finite number"),
        ({"train__curriculum": 1.5}, "train.curriculum: is 1.5. Give a number at most 1"),
        ({"model__drop_blank_tokens": "perhaps"}, "is 'perhaps'. Give true or false"),
        ({"model__base_model_name": 8}, "model.base_model_name: is 8. Give text"),
        ({"model__features": "mean"}, "model.features: is 'mean'. Use one of 'sum', 'concat'"),
        ({"model__precision": "x" * 99}, "xxx.... Use one of"),
        ({"tracking__wandb": False}, "tracking.wandb: is false. Use one of 'offline'"),
        ({"register__gate": 3}, "register.gate: is 3. Give a section"),
        ({"train__max_steps": 2**64}, "is 18446744073709551616. Give a number at most 9007199254740992"),
        ({"train__seed": -(2**64)}, "is -18446744073709551616. Give a number at least -9007199254740992"),
        ({"train__learning_rate": 10**9000}, "is a number of thousands of digits. Give a number at most"),
        ({"train__max_steps": 10**200}, "is a number of hundreds of digits. Give a number at most"),
    ],
    ids=range(36),
)
def test_a_faulty_field_is_reported_with_what_would_be_right(changes: dict[str, Any], said: str) -> None:
    values = real(**changes)
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(values, place="p")
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_the_old_names_are_no_settings_and_lead_to_settings() -> None:
    names = {name.rpartition(".")[2] for name in FIELDS}
    elsewhere = {"batch_size", "max_attempts"}  # of evaluate and of base
    assert not names & (OLD_NAMES.keys() | WITHOUT_SETTING.keys()) - elsewhere
    for here in OLD_NAMES.values():
        assert here.startswith("`") or re.split(r"[:;, ]", here)[0] in FIELDS, here


def test_a_value_in_place_of_a_section_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"p: train: is 7. Give a section with fields below it"):
        RunConfig.from_dict({**REAL, "train": 7}, place="p")

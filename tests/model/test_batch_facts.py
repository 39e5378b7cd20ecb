"""What a MEMModel says of its batch to the gradient doctor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import PLACEHOLDER, small_model

from ocrmem.gradflow import BatchFacts

M = PLACEHOLDER
IDS = torch.tensor([[M, M, M, 1], [1, 1, 1, 1], [M, 1, 1, 1]])
COUNTED: dict[str, Any] = {"memory_tokens": 4, "samples_with_memory": 2}


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ({"input_ids": IDS}, COUNTED | {"groups": [3, 1]}),
        ({"input_ids": IDS[1:2]}, {"memory_tokens": 0, "samples_with_memory": 0, "groups": []}),
        (
            {"input_ids": IDS, "page_kept": torch.tensor([[True, True], [True, False], [True, False]])},
            COUNTED | {"groups": [2, 1, 1]},
        ),
        ({"pixel_values": torch.ones(2, 3, 4, 4)}, {}),
        ({"pixel_values": torch.arange(2.0).reshape(2, 1, 1, 1)}, {"distinct": True}),
    ],
    ids=["features", "no memory", "pages with blank tokens", "equal pages", "different pages"],
)
def test_memory_is_counted(batch: dict[str, torch.Tensor], expected: dict[str, Any]) -> None:
    assert small_model(with_encoder=False).describe_batch(batch) == BatchFacts(**expected)

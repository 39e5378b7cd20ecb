"""The learning rate over a pre-training."""

from __future__ import annotations

_WARMUP, _HOLD, _FLOOR = 0.05, 0.6, 0.02


def rate_share(step: int, steps: int) -> float:
    """Share of the full rate: up over 5 % of the steps, level up to 60 %, then down in a line to 2 %."""
    done = step / steps
    if done < _WARMUP:
        return done / _WARMUP + _FLOOR
    return 1.0 if done < _HOLD else max(_FLOOR, (1 - done) / (1 - _HOLD))

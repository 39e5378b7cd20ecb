"""Keep the optimizer's state in one small file from which any number of processes resume, with DeepSpeed or without.

ZeRO splits the state of all parameters, laid end to end, into one piece a process: its own checkpoints fit only
the same number of processes. What is trained is small, so its state is put together (two tensors a parameter with
AdamW) and split again when it is read. Tensors are named ``<parameter>:<key>``, as in ``fc1.weight:exp_avg``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ocrmem.errors import TrainingError
from ocrmem.training.checkpoint import ANOTHER, read_tensors

OPTIMIZER_FILE = "optimizer.safetensors"
State = dict[str, torch.Tensor]
Trained = Mapping[str, torch.Tensor]  # parameters by name, see `ocrmem.model.trainable.trained_parameters`


def collect(optimizer: Any, trained: Trained) -> State:
    """Return the whole state; all processes call this together.

    Args:
        optimizer: what Trainer steps: torch's optimizer, or DeepSpeed's, in accelerate's wrapper.
        trained: the parameters.
    """
    engine = _zero(optimizer)
    if engine is not None:
        _link(engine)
    state: State = {}
    for name, parameter in trained.items():
        values = _unwrapped(optimizer).state.get(parameter, {}) if engine is None else _from_zero(engine, parameter)
        for key, value in values.items():
            state[f"{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous().clone()
    return state


def restore(optimizer: Any, trained: Trained, path: Path) -> None:
    """Give the optimizer the state that `collect` returned, whatever it is split into now.

    Raises:
        TrainingError: the file is damaged, or holds the state of other parameters.
    """
    state = read_tensors(path)
    expected = set(trained)
    found = {name.rpartition(":")[0] for name in state}
    if state and expected != found:
        odd = ", ".join(sorted(expected ^ found)[:4])
        raise TrainingError.of(str(path), f"is not of the parameters that this model trains: {odd}", ANOTHER)
    engine = _zero(optimizer)
    if engine is None:
        _into_torch(_unwrapped(optimizer), trained, state)
    elif state:
        _into_zero(engine, trained, state)


def forget(optimizer: Any) -> None:
    """Set the state to zeros, which is what it begins with."""
    for values in _state_of(optimizer).values():
        for value in values.values():
            if torch.is_tensor(value):
                value.zero_()


def _state_of(optimizer: Any) -> dict[Any, dict[str, Any]]:
    engine = _zero(optimizer)
    state: dict[Any, dict[str, Any]] = (_unwrapped(optimizer) if engine is None else engine.optimizer).state
    return state


def _unwrapped(optimizer: Any) -> Any:
    """Return torch's or DeepSpeed's optimizer inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _zero(optimizer: Any) -> Any:
    """Return DeepSpeed's ZeRO optimizer, or None for one of torch."""
    found = _unwrapped(optimizer)
    return None if isinstance(found, torch.optim.Optimizer) and not hasattr(found, "loss_scaler") else found


def _into_torch(optimizer: torch.optim.Optimizer, trained: Trained, state: State) -> None:
    names = {parameter: name for name, parameter in trained.items()}
    packed = optimizer.state_dict()
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    packed["state"] = {index: _of_parameter(state, name) for index, name in enumerate(order)} if state else {}
    optimizer.load_state_dict(packed)


def _of_parameter(state: State, name: str) -> State:
    prefix = f"{name}:"
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _is_stage_3(zero: Any) -> bool:
    return hasattr(zero, "fp32_partitioned_groups_flat")


def _pieces(zero: Any) -> list[torch.Tensor]:
    """Return the flat float32 tensors, one a parameter group, of which this process steps its part."""
    return list(zero.fp32_partitioned_groups_flat if _is_stage_3(zero) else zero.single_partition_of_fp32_groups)


def _link(zero: Any) -> None:
    """Link ZeRO-1 and 2's parameters to their state.

    DeepSpeed 0.19 does it once, after the step of the first parameter group, when the others have no state yet.
    """
    from deepspeed.utils import lazy_init_hp_params_optimizer_state

    if not _is_stage_3(zero):
        for group, piece in zip(zero.bit16_groups, _pieces(zero), strict=True):
            lazy_init_hp_params_optimizer_state(group, piece, zero.optimizer.state)


def _from_zero(zero: Any, parameter: torch.Tensor) -> dict[str, Any]:
    from deepspeed.utils import safe_get_full_optimizer_state

    piece = _pieces(zero)[0]
    values: dict[str, Any] = dict(zero.optimizer.state.get(piece, {}))
    for key, value in values.items():
        if torch.is_tensor(value) and value.shape == piece.shape:
            values[key] = safe_get_full_optimizer_state(parameter, key).reshape(_shape(parameter))
    return values


def _into_zero(zero: Any, trained: Trained, state: State) -> None:
    """Make the pieces' state, as DeepSpeed would at its first step, and fill in this process's part."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    first = next(iter(trained))
    shapes = {name: _shape(parameter) for name, parameter in trained.items()}
    elementwise = [key for key, value in _of_parameter(state, first).items() if value.shape == shapes[first]]
    for piece in _pieces(zero):
        made = {key: torch.zeros_like(piece) for key in elementwise}
        for key, value in _of_parameter(state, first).items():
            if key not in elementwise:  # AdamW's step, the same for all
                made[key] = value.clone().to(piece.device)
        zero.optimizer.state[piece] = made
    _link(zero)
    for name, parameter in trained.items():
        for key in elementwise:
            value = state[f"{name}:{key}"]
            if _is_stage_3(zero):
                safe_set_local_optimizer_state(parameter, _share(value, parameter), key)
            else:
                safe_set_full_optimizer_state(parameter, value, key)


def _share(value: torch.Tensor, parameter: Any) -> torch.Tensor:
    """Return this process's part of a tensor that ZeRO-3 pads and splits evenly."""
    import torch.distributed as dist

    size = parameter.ds_tensor.numel()
    padded = value.new_zeros(size * dist.get_world_size())
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * dist.get_rank(), size)


def _shape(parameter: Any) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))

"""Atomic training state: one safetensors file of weights, averages and optimiser moments, never half-written."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mobivid_core.errors import CheckpointError
from mobivid_core.files import write_bytes


def save_state(
    path: Path, step: int, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> None:
    """Write modules' and optimisers' tensors and the step in one atomic move.

    Raises:
        RunError: The disk is full; the previous state is untouched.
    """
    tensors = {f"module/{name}/{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, slot in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{k}": torch.as_tensor(v) for k, v in slot.items()}
    write_bytes(path, save({k: v.detach().contiguous() for k, v in tensors.items()}, {"step": json.dumps(step)}))


def load_state(path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]) -> int:
    """Read a state back into modules and optimisers.

    Returns:
        The number of steps done, 0 if there is no state.

    Raises:
        CheckpointError: The file is corrupt or belongs to a model of other sizes.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as stored:
            step = json.loads(stored.metadata()["step"])
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, f"module/{name}/"))
    except Exception as error:
        raise CheckpointError(
            f"the training state {path} cannot be read into this model ({error}); delete it to start this training "
            "again, or run with the sizes that made it"
        ) from error
    for name, optimizer in optimizers.items():
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, f"optimizer/{name}/").items():
            index, slot = key.split("/")
            slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

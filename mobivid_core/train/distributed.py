"""Data-parallel training: every process draws the whole batch and computes its part.

Process set-up, devices and launching are Hugging Face Accelerate's: `accelerate launch -m` runs on several GPUs what
`python -m` runs on one (`torchrun -m` on several CPU processes, which Accelerate starts through MPI only). Gradients
are summed by hand after the backward pass instead of by a wrapper, because a loss here calls the model that it closes
over, compiled or not. Simplified: the exchange does not overlap with the backward pass.

Paper: its 2 B server model does not fit one GPU and needs sharding (FSDP2); the miniature never does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mobivid_core.errors import ParameterError

Terms = dict[str, Tensor]


def processes() -> PartialState:
    """This process among its like, set up at the first call: device, rank, count. Without a GPU they meet by gloo."""
    return PartialState(cpu=not torch.accelerator.is_available())


@dataclass(frozen=True)
class SplitLoss:
    """A loss whose batch can be split over processes and micro-batches."""

    # Called with (step, generator), a CPU generator; returns the tensors of the whole batch on the CPU, all with the
    # batch as first axis. Every process draws the same
    draw: Callable[[int, torch.Generator], tuple[Tensor, ...]]
    # Called with a part of each of these tensors, on the training device; returns the mean over the part: a scalar, or
    # a dict whose `loss` is minimised
    error: Callable[..., Tensor | Terms]


def split(batch: tuple[Tensor, ...], rank: int, count: int, micro: int = 1) -> list[tuple[tuple[Tensor, ...], float]]:
    """This process's micro-batches and their shares of the whole batch; the shares of all processes together are 1."""
    size, parts = len(batch[0]), count * micro
    if size < parts:
        raise ParameterError(
            f"a batch of {size} cannot be split over {count} processes x {micro} micro-batches; "
            "use a larger batch or fewer parts"
        )
    chunks = list(zip(*(tensor.tensor_split(parts) for tensor in batch), strict=True))
    return [(chunk, len(chunk[0]) / size) for chunk in chunks[rank * micro : (rank + 1) * micro]]


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Sum each gradient over all processes (their losses are already weighted); sharded ones are left to FSDP."""
    if processes().num_processes == 1:
        return
    grads = [p.grad for p in model.parameters() if p.grad is not None and not isinstance(p.grad, DTensor)]
    if grads:
        flat = reduce(torch.cat([grad.flatten() for grad in grads]), reduction="sum")
        for grad, mine in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mine.view_as(grad))


def agreed(value: bool) -> bool:
    """True where every process says so: what each found out by itself, and must do alike."""
    return total({"yes": float(value)})["yes"] == processes().num_processes


def total(values: dict[str, float]) -> dict[str, float]:
    """Sum of each value over all processes."""
    state = processes()
    if state.num_processes == 1:
        return values
    summed = reduce(torch.tensor(list(values.values()), dtype=torch.float32, device=state.device), reduction="sum")
    return dict(zip(values, summed.tolist(), strict=True))


def shard(model: nn.Module, *, bf16: bool = False) -> nn.Module:
    """Shard a transformer's parameters, gradients and optimiser state over all processes (FSDP2, in place).

    Each of its `blocks` is gathered when it is needed, and freed after. With `bf16`, the shards stay float32.
    """
    if processes().num_processes == 1:
        raise ParameterError(
            "sharding needs several processes: start with `accelerate launch --num_processes N -m ...` "
            "(CPU: torchrun), or do not shard"
        )
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    for block in model.blocks:
        fully_shard(block, mp_policy=policy)
    return fully_shard(model, mp_policy=policy)


def whole(value: Tensor) -> Tensor:
    """The full tensor of a sharded one (all processes must ask together); others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, pattern: Tensor) -> Tensor:
    """A full tensor, sharded as `pattern` is."""
    if not isinstance(pattern, DTensor) or value.shape != pattern.shape:
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)

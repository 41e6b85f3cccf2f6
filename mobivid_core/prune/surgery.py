"""Applying a plan: as gates on the whole model, or physically as a smaller model. Both compute the same function.

Paper: tri-level pruning. A head is rows of q, k, v and columns of the out projection; a neuron is a row of the up and a
column of the down projection; blocks are whole modules.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import Gates, MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan


def gates_for(plan: PruningPlan, sizes: DiTConfig) -> Gates:
    """Gates of the source model, of these `sizes`, that switch off everything the plan removes."""
    _check_source(plan, sizes)
    gates = Gates.ones(sizes)
    for gate in gates.tensors():
        gate.zero_()
    gates.blocks[list(plan.keep_blocks)] = 1
    for kind in sizes.units:
        for b, kept in zip(plan.keep_blocks, getattr(plan, kind), strict=True):
            getattr(gates, kind)[b][list(kept)] = 1
    return gates


@torch.no_grad()
def prune(model: MobiVidTransformer3DModel, plan: PruningPlan) -> MobiVidTransformer3DModel:
    """A physically smaller model with copied weights; equals `model(..., gates=gates_for(plan, sizes))`.

    The plan's source model (a ParameterError says if it is another) may lie on the meta device; the result then too.
    """
    _check_source(plan, model.sizes)
    with torch.device("meta"):  # no time spent on initial values that are replaced below
        positions = {"rope_theta": model.config.rope_theta, "rope_scale": model.config.rope_scale}
        small = MobiVidTransformer3DModel(**plan.sizes.as_kwargs(), **positions)
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("blocks.")}
    for i, b in enumerate(plan.keep_blocks):
        units = {"attn1": plan.self_heads[i], "attn2": plan.cross_heads[i], "ffn": plan.ffn[i]}
        for name, value in model.blocks[b].state_dict().items():
            layer, _, rest = name.partition(".")
            kept = _kept_part(rest, value, units[layer], model.config.head_dim) if layer in units else value.clone()
            state[f"blocks.{i}.{name}"] = kept
    small.load_state_dict(state, assign=True)
    return small.train(model.training).requires_grad_(True)


def _kept_part(name: str, value: Tensor, units: tuple[int, ...], head_dim: int) -> Tensor:
    """The rows or columns of a layer's tensor that belong to kept heads or neurons."""
    keep = torch.tensor(units, dtype=torch.long, device=value.device)
    if name in ("to_out.bias", "down.bias"):
        return value.clone()
    if name.startswith("to_"):
        keep = (keep[:, None] * head_dim + torch.arange(head_dim, device=value.device)).flatten()
    return value.index_select(1 if name in ("to_out.weight", "down.weight") else 0, keep)


def _check_source(plan: PruningPlan, sizes: DiTConfig) -> None:
    if plan.source != sizes:
        raise ParameterError(
            f"the plan was made for a model of {plan.source}, got one of {sizes}; make a plan for this model"
        )

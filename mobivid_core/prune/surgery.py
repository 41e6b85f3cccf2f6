"""Applying a plan: as gates on the whole model, or physically as a smaller model. Both compute the same function.

Paper: tri-level pruning. A head is rows of q, k, v and columns of the out projection; a neuron is a row of the up and a
column of the down projection; blocks are whole modules.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.gates import Gates
from mobivid_core.prune.plan import PruningPlan


def gates_for(plan: PruningPlan, sizes: DiTConfig) -> Gates:
    """Gates of the source model that switch off everything the plan removes.

    Raises:
        ParameterError: The plan was made for a model of other sizes.
    """
    _check_source(plan, sizes)
    gates = Gates.ones(sizes).map(torch.zeros_like)
    gates.blocks[list(plan.keep_blocks)] = 1
    for i, b in enumerate(plan.keep_blocks):
        gates.self_heads[b][list(plan.self_heads[i])] = 1
        gates.cross_heads[b][list(plan.cross_heads[i])] = 1
        gates.ffn[b][list(plan.ffn[i])] = 1
    return gates


@torch.no_grad()
def prune(model: MobiVidTransformer3DModel, plan: PruningPlan) -> MobiVidTransformer3DModel:
    """A physically smaller model with copied weights; equals `model(..., gates=gates_for(plan, sizes))`.

    Args:
        model: The plan's source model; it may lie on the meta device (the result then does too).
        plan: What to keep.

    Raises:
        ParameterError: The plan was made for a model of other sizes.
    """
    _check_source(plan, model.sizes)
    with torch.device("meta"):  # no time spent on initial values that are replaced below
        positions = {"rope_theta": model.config.rope_theta, "rope_scale": model.config.rope_scale}
        small = MobiVidTransformer3DModel(**plan.sizes.as_kwargs(), **positions)
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("blocks.")}
    for i, b in enumerate(plan.keep_blocks):
        heads = {"attn1": plan.self_heads[i], "attn2": plan.cross_heads[i]}
        for name, value in model.blocks[b].state_dict().items():
            state[f"blocks.{i}.{name}"] = _kept_part(name, value, heads, plan.ffn[i], model.config.head_dim)
    small.load_state_dict(state, assign=True)
    return small.train(model.training).requires_grad_(True)


def _kept_part(
    name: str, value: Tensor, heads: dict[str, tuple[int, ...]], neurons: tuple[int, ...], head_dim: int
) -> Tensor:
    """The rows or columns of one block tensor that belong to kept units."""
    layer, _, rest = name.partition(".")
    if layer == "ffn":
        keep = torch.tensor(neurons, dtype=torch.long, device=value.device)
        if rest in ("up.weight", "up.bias"):
            return value.index_select(0, keep)
        return value.index_select(1, keep) if rest == "down.weight" else value.clone()
    if layer in heads:
        keep = torch.tensor(heads[layer], dtype=torch.long, device=value.device)
        inner = (keep[:, None] * head_dim + torch.arange(head_dim, device=value.device)).flatten()
        if rest.startswith(("norm_q", "norm_k")):
            return value.index_select(0, keep)
        if rest.startswith(("to_q", "to_k", "to_v")):
            return value.index_select(0, inner)
        return value.index_select(1, inner) if rest == "to_out.weight" else value.clone()
    return value.clone()


def _check_source(plan: PruningPlan, sizes: DiTConfig) -> None:
    if plan.source != sizes:
        raise ParameterError(
            f"the plan was made for a model of {plan.source}, got one of {sizes}; make a plan for this model"
        )

"""The DiT's forward pass in stages, so that work shared by many variants is done once.

One-at-a-time sensitivity reuses the states before the changed block; the least-squares refit needs the input and
target of every layer. Equal to `MobiVidTransformer3DModel.forward` (tested).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.models.dit import MobiVidTransformer3DModel, TransformerBlock
from mobivid_core.models.gates import Gates
from mobivid_core.models.rope import RotaryTable
from mobivid_core.sensitivity.calibration import CalibrationSet

SUBLAYERS = ("attn1", "attn2", "ffn")


@dataclass(frozen=True)
class Context:
    """What every block of one batch shares."""

    text: Tensor  # (B, L, hidden) projected text
    mask: Tensor  # (B, 1, 1, L) bool
    modulation: Tensor  # (B, 6, hidden)
    embedded: Tensor  # (B, hidden)
    table: RotaryTable  # rotary table of the N tokens
    grid: tuple[int, ...]  # (t, h, w)


def enter(model: MobiVidTransformer3DModel, batch: CalibrationSet) -> tuple[Tensor, Context]:
    """Everything before the first block: (x (B, N, hidden), context)."""
    grid = tuple(batch.noisy.shape[2:])
    modulation, embedded = model.time_modulation(batch.timestep)
    table = model.rotary(grid, batch.noisy.device)
    text, mask = model.caption_projection(batch.text), batch.mask[:, None, None, :]
    x = model.proj_in(batch.noisy.flatten(2).transpose(1, 2))
    return x, Context(text, mask, modulation, embedded, table, grid)


def run_block(
    model: MobiVidTransformer3DModel, i: int, x: Tensor, context: Context, gates: Gates | None = None
) -> Tensor:
    """Block i, with the gates of block i if given."""
    units = None if gates is None else (gates.self_heads[i], gates.cross_heads[i], gates.ffn[i], gates.blocks[..., i])
    return model.blocks[i](x, context.text, context.modulation, context.table, context.mask, units)


def leave(model: MobiVidTransformer3DModel, x: Tensor, context: Context) -> Tensor:
    """Everything after the last block: (B, N, hidden) -> (B, C, t, h, w)."""
    velocity = model.proj_out(final_input(model, x, context))
    return velocity.transpose(1, 2).unflatten(2, context.grid)


def final_input(model: MobiVidTransformer3DModel, x: Tensor, context: Context) -> Tensor:
    """(B, N, hidden) input of the output projection."""
    shift, scale = (model.scale_shift_table + context.embedded[:, None])[:, :, None].unbind(1)
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def output_projection(block: TransformerBlock, sublayer: str) -> torch.nn.Linear:
    """The linear layer that ends a sublayer of `SUBLAYERS`: the one that pruning narrows and the refit solves for."""
    return block.ffn.down if sublayer == "ffn" else getattr(block, sublayer).to_out


def run_sublayer(
    block: TransformerBlock, sublayer: str, x: Tensor, context: Context
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One sublayer, kept apart from the residual stream.

    Returns:
        (inner (B, N, k) input of its output projection, out (B, N, hidden) its output before the adaLN gate,
        gate (B, hidden) or None for cross-attention, which has none). The stream goes on as x + gate * out.
    """
    values = block.scale_shift_table + context.modulation
    shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = values.unbind(1)
    caught: list[Tensor] = []
    handle = output_projection(block, sublayer).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        if sublayer == "attn1":
            normed = F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale_attn[:, None]) + shift_attn[:, None]
            out, gate = block.attn1(normed, table=context.table), gate_attn
        elif sublayer == "attn2":
            out, gate = block.attn2(x, context=context.text, mask=context.mask), None
        else:
            normed = F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale_ffn[:, None]) + shift_ffn[:, None]
            out, gate = block.ffn(normed), gate_ffn
    finally:
        handle.remove()
    # A layer without units never calls its projection: only its bias is left.
    inner = caught[0] if caught else x.new_zeros(*x.shape[:2], 0)
    return inner, out, gate


def advance(x: Tensor, out: Tensor, gate: Tensor | None) -> Tensor:
    """The residual stream after a sublayer."""
    return x + (out if gate is None else gate[:, None] * out)

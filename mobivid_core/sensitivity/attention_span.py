"""Which heads look at other frames: attention that leaves a token's own latent frame (reviewer question R1.5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mobivid_core.models.dit import MobiVidTransformer3DModel, TransformerBlock, modulated
from mobivid_core.models.rope import RotaryTable
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import BATCH


@torch.no_grad()
def other_frame_attention(model: MobiVidTransformer3DModel, calibration: CalibrationSet) -> tuple[np.ndarray, ...]:
    """Share of each self-attention head's weight that lies on tokens of other latent frames.

    One (H_b,) array a block. A head with uniform attention has 1 - 1/t, with t latent frames.
    """
    total = [np.zeros(h) for h in model.sizes.self_heads]
    for _, batch in calibration.batches(BATCH):
        x, context = model.enter(*batch.inputs)
        t, h, w = context.grid
        frame = torch.arange(t).repeat_interleave(h * w)
        other = frame[:, None] != frame[None, :]
        for b, block in enumerate(model.blocks):
            outside = (_weights(block, x, context.modulation, context.table) * other).sum(-1).mean(-1)
            total[b] += outside.double().sum(0).numpy()
            x = model.run_block(b, x, context)
    return tuple(values / len(calibration) for values in total)


def _weights(block: TransformerBlock, x: Tensor, modulation: Tensor, table: RotaryTable) -> Tensor:
    """(B, H, N, N) self-attention weights of a block, as its forward pass computes them."""
    normed = modulated(x, *block.vectors(modulation)[:2])
    query, key = block.attn1.query_and_key(normed, normed, table)
    return (query @ key.transpose(-1, -2) * block.attn1.head_dim**-0.5).softmax(-1)

"""The transformer as the phone runs it, written for float16: a block, a run of blocks, the host's tables.

Paper: the on-device section. The layers are the transformer's own; only the modulation is prepared elsewhere: the host
(a few lines of Swift) keeps it as a small table, one row set for each of the few fixed steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.models.dit import MobiVidTransformer3DModel, TransformerBlock
from mobivid_core.models.rope import rotary_table

Grid = tuple[int, int, int]


class BlockStep(nn.Module):
    """One transformer block that takes its six modulation vectors ready-made.

    It walks through the block's own layers: the block adds its table to the timestep's vectors and 1 to the scales in
    each call, three roundings in float16 that `host_modulation` makes once, in float32. A test holds the two equal.
    """

    def __init__(self, block: TransformerBlock) -> None:
        """Keep the block's layers."""
        super().__init__()
        self.attn1, self.attn2, self.ffn = block.attn1, block.attn2, block.ffn

    def forward(
        self, x: Tensor, text: Tensor, rows: Sequence[Tensor], table: tuple[Tensor, Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """x (1, N, hidden), text (1, L, hidden), six rows (1, 1, hidden) as `host_modulation` orders them."""
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = rows
        width = x.shape[-1:]
        x = x + gate_attn * self.attn1(F.rms_norm(x, width, eps=1e-6) * scale_attn + shift_attn, table=table)
        x = x + self.attn2(x, context=text, mask=mask)
        return x + gate_ffn * self.ffn(F.rms_norm(x, width, eps=1e-6) * scale_ffn + shift_ffn)


class SingleBlock(nn.Module):
    """One block with its rotary table built in: the unit that is timed on a device and composed."""

    def __init__(self, block: TransformerBlock, grid: Grid, head_dim: int) -> None:
        """Keep the block and the rotary table of its token grid."""
        super().__init__()
        self.block = BlockStep(block)
        self.register_buffer("cos", rotary_table(grid, head_dim)[0])
        self.register_buffer("sin", rotary_table(grid, head_dim)[1])

    def forward(self, tokens: Tensor, text: Tensor, modulation: Tensor) -> Tensor:
        """tokens (1, N, hidden), projected text (1, L, hidden), modulation (1, 6, hidden) -> (1, N, hidden)."""
        return self.block(tokens, text, modulation.split(1, dim=1), (self.cos, self.sin))


class DiTStep(nn.Module):
    """A run of blocks of one transformer step; with the first block comes the entry, with the last the exit.

    The whole transformer is one such run; above the size that a phone loads at once it is cut into several
    (`dit_chunks`). The timestep's MLP stays on the host, and the rotary table is a constant, because the transformer
    builds its own from `arange` in each call and coremltools drops that operator's `dtype`.
    """

    def __init__(self, model: MobiVidTransformer3DModel, grid: Grid, blocks: range | None = None) -> None:
        """Keep the layers of `blocks` (default: all) for one latent grid."""
        super().__init__()
        total = len(model.blocks)
        self.grid, self.run = grid, range(total) if blocks is None else blocks
        self.blocks = nn.ModuleList(BlockStep(model.blocks[i]) for i in self.run)
        self.enters, self.leaves = self.run.start == 0, self.run.stop == total
        if self.enters:
            self.proj_in, self.caption_projection = model.proj_in, model.caption_projection
        if self.leaves:
            self.proj_out = model.proj_out
        cos, sin = model.rotary(grid)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, latents: Tensor, text: Tensor, text_mask: Tensor, modulation: Tensor) -> Tensor | tuple:
        """One step, or its part.

        Args:
            latents: (1, C, t, h, w); token states (1, N, hidden) for a part that does not start at the first block.
            text: (1, L, D) token states of the text encoder; projected (1, L, hidden) for such a part.
            text_mask: (1, L), added to the scores.
            modulation: (1, 6 * blocks [+ 2 at the exit], hidden), from `host_modulation`.

        Returns:
            Velocity (1, C, t, h, w); before the last block (token states, projected text).
        """
        rows = modulation.split(1, dim=1)
        x = latents
        if self.enters:
            x, text = self.proj_in(latents.flatten(2).transpose(1, 2)), self.caption_projection(text)
        mask = text_mask[:, None, None, :]
        for i, block in enumerate(self.blocks):
            x = block(x, text, rows[6 * i : 6 * i + 6], (self.cos, self.sin), mask)
        if not self.leaves:
            return x, text
        shift, scale = rows[-2:]
        velocity = self.proj_out(F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale + shift)
        return velocity.transpose(1, 2).unflatten(2, self.grid)


def host_modulation(model: MobiVidTransformer3DModel, timesteps: Tensor) -> Tensor:
    """The small table that the host keeps: every modulation vector of every step, ready to multiply and add.

    float16 would spoil the timestep embedding by up to 0.45 at t = 1000, and a few fixed steps need only a few rows.

    Args:
        model: The transformer.
        timesteps: (n,) 1000 * sigma.

    Returns:
        (n, 6 * blocks + 2, hidden): of each block shift, 1 + scale and gate of attention, then of the FFN; at the end
        shift and 1 + scale of the exit.
    """
    with torch.no_grad():
        modulation, embedded = model.time_modulation(timesteps)
        blocks = [block.scale_shift_table + modulation for block in model.blocks]
        rows = torch.cat([*blocks, model.scale_shift_table + embedded[:, None]], dim=1)
        rows[:, [i for i in range(rows.shape[1] - 2) if i % 6 in (1, 4)] + [-1]] += 1
    return rows

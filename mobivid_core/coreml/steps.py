"""Core ML variants of transformer and decoder: blocks, runs of blocks, modulation tables, latents to frames.

Paper: the on-device section. The layers are the models' own, written for float16; tests hold both equal to them. The
modulation is prepared elsewhere: the host (a few lines of Swift) keeps it as a small table, one row set for each of the
few fixed steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.models.counts import Grid
from mobivid_core.models.dit import MobiVidTransformer3DModel, TransformerBlock
from mobivid_core.models.rope import rotary_table
from mobivid_core.models.vae import MobiVidVAE


class BlockStep(nn.Module):
    """One transformer block that takes its six modulation vectors ready-made.

    The block itself adds its table to the timestep's vectors and 1 to the scales in each call, three roundings in
    float16 that `host_modulation` makes once, in float32.
    """

    def __init__(self, block: TransformerBlock) -> None:
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
        super().__init__()
        self.block = BlockStep(block)
        self.register_buffer("cos", rotary_table(grid, head_dim)[0])
        self.register_buffer("sin", rotary_table(grid, head_dim)[1])

    def forward(self, tokens: Tensor, text: Tensor, modulation: Tensor) -> Tensor:
        """tokens (1, N, hidden), projected text (1, L, hidden), modulation (1, 6, hidden) -> (1, N, hidden)."""
        return self.block(tokens, text, modulation.split(1, dim=1), (self.cos, self.sin))


class DiTStep(nn.Module):
    """A run of blocks of one step. The run of the first block has the input projections, that of the last the output's.

    The whole transformer (without `blocks`) is one such run; above the size that a phone loads at once it is cut into
    several (`dit_chunks`). The timestep's MLP stays on the host, and the rotary table of the latent grid is a constant,
    because the transformer builds its own from `arange` in each call and coremltools drops that operator's `dtype`.
    """

    def __init__(self, model: MobiVidTransformer3DModel, grid: Grid, blocks: range | None = None) -> None:
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
        """One step: velocity (1, C, t, h, w), or (token states, projected text) of a part before the last block.

        Args:
            latents: (1, C, t, h, w); token states (1, N, hidden) for a part that does not start at the first block.
            text: (1, L, D) token states of the text encoder; projected (1, L, hidden) for such a part.
            text_mask: (1, L), added to the scores.
            modulation: (1, 6 * blocks [+ 2 at the exit], hidden), from `host_modulation`.
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

    In float16 the timestep embedding is wrong by up to 0.45 at t = 1000, and a few fixed steps need only a few rows.
    `timesteps` (n,) are 1000 * sigma.

    Returns:
        (n, 6 * blocks + 2, hidden): of each block shift, 1 + scale and gate of attention, then of the FFN; at the end
        shift and 1 + scale of the exit.
    """
    with torch.no_grad():
        modulation, embedded = model.time_embed(timesteps)
        blocks = [block.scale_shift_table + modulation for block in model.blocks]
        rows = torch.cat([*blocks, model.scale_shift_table + embedded[:, None]], dim=1)
        rows[:, [i for i in range(rows.shape[1] - 2) if i % 6 in (1, 4)] + [-1]] += 1
    return rows


class DecoderStep(nn.Module):
    """Normalised latents of one clip to the clip, without tensors of more than five axes.

    The VAE's grouping of frames makes values of six axes, which Core ML refuses: here frames are the batch.
    """

    def __init__(self, vae: MobiVidVAE) -> None:
        super().__init__()
        self.linear_decoder, self.decoder_net = vae.linear_decoder, vae.decoder_net
        # (z + mean / std) std, not z std + mean: the converter makes that a batch norm with an epsilon of 1e-5.
        self.register_buffer("shift", (vae.latents_mean / vae.latents_std).view(1, -1, 1, 1).clone())
        self.register_buffer("std", vae.latents_std.view(1, -1, 1, 1).clone())

    def forward(self, latents: Tensor) -> Tensor:
        """(1, C, t, h, w) -> (1, 3, T, H, W) in [-1, 1]."""
        z = (latents.squeeze(0).transpose(0, 1) + self.shift) * self.std
        split = self.linear_decoder.split
        parts = [split.first(z[:1])]
        if z.shape[0] > 1:
            rest = split.rest(z[1:])
            parts.append(rest.reshape(-1, rest.shape[1] // split.time, *z.shape[2:]))
        frames = self.linear_decoder.frames(torch.cat(parts))
        if self.decoder_net is not None:
            frames = frames + self._correction(z, frames)
        return frames.clamp(-1, 1).transpose(0, 1).unsqueeze(0)

    def _correction(self, z: Tensor, frames: Tensor) -> Tensor:
        """Latent steps (t, C, h, w) and linear frames (T, 3, H, W) -> what the convolutional net adds to the frames.

        G groups of `time` frames are the batch; the first frame goes in as a still, and comes out as a group's mean.
        """
        net, size = self.decoder_net, frames.shape[2:]
        x = net.enter(z)
        for stage in net.stages:
            x = stage(x)
        x = net.up(net.fine(net.before(x, 1)))
        filled = torch.cat([frames[:1]] * net.time + [frames[1:]])
        groups = filled.reshape(-1, net.time, 3, *size).transpose(1, 2)
        x = x + net.see(F.pixel_unshuffle(groups.reshape(groups.shape[0], -1, *size), 4))
        for hear, block in zip(net.hear, net.refine, strict=True):
            x = block(hear(x, 1))
        shuffled = F.pixel_shuffle(net.out(F.silu(x)), 4)
        groups = shuffled.reshape(shuffled.shape[0], 3, net.time, *size)
        first = groups[:1].mean(2)
        if groups.shape[0] == 1:
            return first
        return torch.cat([first, groups[1:].transpose(1, 2).reshape(-1, 3, *size)])

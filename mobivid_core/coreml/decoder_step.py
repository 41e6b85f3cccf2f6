"""The VAE's decoder as the phone runs it: latents to frames, without tensors of more than five axes.

Paper: the light video decoder of the on-device section. The layers are the VAE's own; they are walked through here
frame by frame as a batch, because Core ML refuses values of six axes, which the VAE's grouping of frames makes. A test
holds the two equal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobivid_core.models.vae import MobiVidVAE


class DecoderStep(nn.Module):
    """Normalised latents of one clip to the clip; the encoder is left out."""

    def __init__(self, vae: MobiVidVAE) -> None:
        """Keep the decoding half of a VAE."""
        super().__init__()
        self.linear_decoder, self.decoder_net = vae.linear_decoder, vae.decoder_net
        # (z + mean / std) std, not z std + mean: the converter makes that a batch norm with an epsilon of 1e-5.
        self.register_buffer("shift", (vae.latents_mean / vae.latents_std).view(1, -1, 1, 1).clone())
        self.register_buffer("std", vae.latents_std.view(1, -1, 1, 1).clone())

    def forward(self, latents: Tensor) -> Tensor:
        """(1, C, t, h, w) -> (1, 3, T, H, W) in [-1, 1]."""
        z = (latents.squeeze(0).transpose(0, 1) + self.shift) * self.std
        frames = self._linear(z)
        if self.decoder_net is not None:
            frames = frames + self._correction(z, frames)
        return frames.clamp(-1, 1).transpose(0, 1).unsqueeze(0)

    def _linear(self, z: Tensor) -> Tensor:
        """Latent steps (t, C, h, w) -> frames (T, 3, H, W)."""
        split = self.linear_decoder.split
        parts = [split.first(z[:1])]
        if z.shape[0] > 1:
            rest = split.rest(z[1:])
            parts.append(rest.reshape(-1, rest.shape[1] // split.time, *z.shape[2:]))
        return self.linear_decoder.frames(torch.cat(parts))

    def _correction(self, z: Tensor, frames: Tensor) -> Tensor:
        """Latent steps and the linear frames -> what the convolutional net adds (T, 3, H, W)."""
        net = self.decoder_net
        x = net.enter(z)
        for stage in net.stages:
            x = stage(x)
        x = net.up(net.fine(net.before(x, 1))) + net.see(self._fold(frames, net.time))
        for hear, block in zip(net.hear, net.refine, strict=True):
            x = block(hear(x, 1))
        return self._unfold(F.pixel_shuffle(net.out(F.silu(x)), 4), net.time)

    def _fold(self, frames: Tensor, time: int) -> Tensor:
        """Frames (T, 3, H, W) -> groups (G, 3 * time * 16, H / 4, W / 4), the first frame repeated as a still."""
        filled = torch.cat([frames[:1]] * time + [frames[1:]])
        groups = filled.reshape(-1, time, *frames.shape[1:]).transpose(1, 2)
        return F.pixel_unshuffle(groups.reshape(groups.shape[0], -1, *frames.shape[2:]), 4)

    def _unfold(self, groups: Tensor, time: int) -> Tensor:
        """Groups (G, 3 * time, H, W) -> frames (T, 3, H, W); the first group gives the mean of its frames."""
        split = groups.reshape(groups.shape[0], 3, time, *groups.shape[2:])
        first = split[:1].mean(2)
        if groups.shape[0] == 1:
            return first
        return torch.cat([first, split[1:].transpose(1, 2).reshape(-1, 3, *groups.shape[2:])])

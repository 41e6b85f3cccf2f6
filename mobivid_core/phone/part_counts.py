"""Counts of the light decoder (`models.vae`) with torch's counter, on the meta device: nothing is computed.

Paper: an 8x32x32 VAE (data/paper claim C19). Traffic and peak are those of the convolutions: the rotation of pixels
across token borders is element-wise, and left out as all such work is.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from mobivid_core.models.counts import Grid, LayerCount
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.phone.module_counts import module_counts


class _Decoder(nn.Module):
    """The VAE's decoding half alone."""

    def __init__(self, vae: MobiVidVAE) -> None:
        super().__init__()
        self.linear, self.net = vae.linear_decoder, vae.decoder_net

    def forward(self, z: Tensor) -> Tensor:
        clip = self.linear(z)
        return clip if self.net is None else clip + self.net(z, clip)


@cache
def decoder_counts(grid: Grid, *, channels: int, width: int) -> dict[str, LayerCount]:
    """The 8x32x32 decoder's "total" on a latent grid (t, h, w) of `channels`, `width` channels wide at an eighth."""
    with torch.device("meta"):
        decoder = _Decoder(MobiVidVAE(latent_channels=channels, width=width))
        return {"total": module_counts(decoder, torch.empty(1, channels, *grid), leaves=nn.Conv2d)}

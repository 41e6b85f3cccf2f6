"""Counts of the parts around the transformer at paper scale: text encoder, a light decoder, and LTX-Video's decoder.

Paper: it names CLIP (claim C27) and an 8x32x32 VAE (claim C19), and says nothing of the decoder's cost. That cost is
the largest unknown of the frame rate, so two decoders bracket it: ours widened to 128 latent channels, and the one of
LTX-Video, whose VAE has the same ratio. Modules are built on the meta device: nothing is allocated or computed.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from mobivid_core.deploy.counts import Grid, LayerCount, module_counts
from mobivid_core.models.config import MOBILE


class _Decode(nn.Module):
    """The decoding half of a VAE, so that only its parameters are counted."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.linear_decoder, self.decoder_net = vae.linear_decoder, vae.decoder_net

    def forward(self, z: Tensor) -> Tensor:
        clip = self.linear_decoder(z)
        return clip if self.decoder_net is None else clip + self.decoder_net(z, clip)


def vae_decoder_counts(vae: nn.Module, grid: Grid) -> LayerCount:
    """Counts of a `MobiVidVAE`'s decoder (on the meta device) at a latent grid (t, h, w)."""
    return module_counts(_Decode(vae), torch.empty(1, vae.config.latent_channels, *grid, device="meta"))


def light_vae(width: int = 256, latent_channels: int = MOBILE.in_channels) -> nn.Module:
    """This project's VAE at paper scale; width 256 is `assumed` (a few percent of the transformer's parameters)."""
    from mobivid_core.models.vae import MobiVidVAE

    return MobiVidVAE(latent_channels=latent_channels, width=width)


@cache
def light_decoder_counts(grid: Grid, width: int = 256, latent_channels: int = MOBILE.in_channels) -> LayerCount:
    """Counts of `light_vae`'s decoder."""
    with torch.device("meta"):
        vae = light_vae(width, latent_channels)
    return vae_decoder_counts(vae, grid)


@cache
def ltx_decoder_counts(grid: Grid) -> LayerCount:
    """LTX-Video's own decoder as diffusers builds it (8x32x32, 128 latent channels)."""
    from diffusers import AutoencoderKLLTXVideo

    with torch.device("meta"):
        decoder = AutoencoderKLLTXVideo().decoder
    return module_counts(decoder, torch.empty(1, MOBILE.in_channels, *grid, device="meta"))


@cache
def clip_text_counts(length: int = 77) -> LayerCount:
    """A text encoder of CLIP ViT-L/14's sizes."""
    from mobivid_core.deploy.text_graphs import clip_text_graph

    with torch.device("meta"):
        graph = clip_text_graph(length=length)
    return module_counts(graph.module, *graph.inputs.values())

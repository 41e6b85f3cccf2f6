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
def ltx_transformer_counts(grid: Grid, text_tokens: int = 128) -> LayerCount:
    """One pass of LTX-Video's transformer as diffusers builds it."""
    from diffusers import LTXVideoTransformer3DModel

    with torch.device("meta"):
        model = LTXVideoTransformer3DModel()
        latents = torch.empty(1, grid[0] * grid[1] * grid[2], model.config.in_channels)
        text, mask = torch.empty(1, text_tokens, model.config.caption_channels), torch.ones(1, text_tokens)
        time = torch.empty(1, 1)
    return module_counts(_Called(model, num_frames=grid[0], height=grid[1], width=grid[2]), latents, text, time, mask)


@cache
def wan_transformer_counts(grid: Grid, text_tokens: int = 512) -> LayerCount:
    """One pass of Wan 2.1's 1.3 B transformer at its published sizes; `grid` in latents of its 4x8x8 VAE."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, freq_dim=256
        )
        latents, time = torch.empty(1, 16, *grid), torch.empty(1)
        text = torch.empty(1, text_tokens, model.config.text_dim)
    return module_counts(_Called(model), latents, time, text)


class _Called(nn.Module):
    """A module called with fixed keyword arguments."""

    def __init__(self, module: nn.Module, **keywords: int) -> None:
        super().__init__()
        self.module, self.keywords = module, keywords

    def forward(self, *inputs: Tensor) -> object:
        return self.module(*inputs, **self.keywords, return_dict=False)


@cache
def clip_text_counts(length: int = 77) -> LayerCount:
    """A text encoder of CLIP ViT-L/14's sizes."""
    from mobivid_core.deploy.text_graphs import clip_text_graph

    with torch.device("meta"):
        graph = clip_text_graph(length=length)
    return module_counts(graph.module, *graph.inputs.values())

"""Counts of the parts around the transformer at paper scale: text encoder, a light decoder, and LTX-Video's decoder.

Paper: CLIP (claim C27) and an 8x32x32 VAE (claim C19), whose decoder's cost is not given. That cost is the largest
unknown of the frame rate, so two decoders bracket it: ours widened to 128 latent channels, and the one of LTX-Video,
whose VAE has the same ratio. Modules are built on the meta device: nothing is allocated or computed.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from mobivid_core.models.config import MOBILE
from mobivid_core.models.counts import Grid, LayerCount
from mobivid_core.phone.module_counts import module_counts
from mobivid_core.phone.part_counts import decoder_counts, text_counts

#: Channels of the light decoder at paper scale: `assumed`, four times the miniature's.
LIGHT_WIDTH = 256


def light_vae() -> nn.Module:
    """This project's VAE at paper scale; its width is `assumed`."""
    from mobivid_core.models.vae import MobiVidVAE

    return MobiVidVAE(latent_channels=MOBILE.in_channels, width=LIGHT_WIDTH)


def light_decoder_counts(grid: Grid, width: int = LIGHT_WIDTH, latent_channels: int = MOBILE.in_channels) -> LayerCount:
    """Counts of `light_vae`'s decoder."""
    return decoder_counts(grid, channels=latent_channels, width=width)["total"]


@cache
def ltx_decoder_counts(grid: Grid) -> LayerCount:
    """LTX-Video's own decoder as diffusers builds it (8x32x32, 128 latent channels)."""
    from diffusers import AutoencoderKLLTXVideo

    with torch.device("meta"):
        decoder = AutoencoderKLLTXVideo().decoder
    return module_counts(decoder, torch.empty(1, MOBILE.in_channels, *grid, device="meta"))


@cache
def ltx_transformer_counts(grid: Grid) -> LayerCount:
    """One pass of LTX-Video's transformer as diffusers builds it, on 128 text tokens."""
    from diffusers import LTXVideoTransformer3DModel

    with torch.device("meta"):
        model = LTXVideoTransformer3DModel()
        latents = torch.empty(1, grid[0] * grid[1] * grid[2], model.config.in_channels)
        text, mask = torch.empty(1, 128, model.config.caption_channels), torch.ones(1, 128)
        time = torch.empty(1, 1)
    return module_counts(_Called(model, num_frames=grid[0], height=grid[1], width=grid[2]), latents, text, time, mask)


@cache
def wan_transformer_counts(grid: Grid) -> LayerCount:
    """One pass of Wan 2.1's 1.3 B transformer on 512 text tokens; `grid` in latents of its 4x8x8 VAE."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, freq_dim=256
        )
        latents, time = torch.empty(1, 16, *grid), torch.empty(1)
        text = torch.empty(1, 512, model.config.text_dim)
    return module_counts(_Called(model), latents, time, text)


class _Called(nn.Module):
    """A module called with fixed keyword arguments."""

    def __init__(self, module: nn.Module, **keywords: int) -> None:
        super().__init__()
        self.module, self.keywords = module, keywords

    def forward(self, *inputs: Tensor) -> object:
        return self.module(*inputs, **self.keywords, return_dict=False)


def clip_text_counts(length: int = 77) -> LayerCount:
    """A text encoder of CLIP ViT-L/14's sizes."""
    sizes = {"hidden": 768, "layers": 12, "ffn": 3072, "vocabulary": 49_408, "positions": 77}
    return text_counts(**sizes, length=length)["total"]

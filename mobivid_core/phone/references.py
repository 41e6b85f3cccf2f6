"""Counts of the parts around the transformer at paper scale: text encoder, a light decoder, and LTX-Video's decoder.

Paper: CLIP (claim C27) and an 8x32x32 VAE (claim C19), whose decoder's cost is not given. That cost is the largest
unknown of the frame rate, so two decoders bracket it: ours widened to 128 latent channels, and the one of LTX-Video,
whose VAE has the same ratio. Modules are built on the meta device: nothing is allocated or computed.
"""

from __future__ import annotations

from functools import cache

import torch

from mobivid_core.models.config import MOBILE
from mobivid_core.models.counts import Grid, LayerCount, linear_count
from mobivid_core.phone.module_counts import module_counts
from mobivid_core.phone.part_counts import decoder_counts

#: Channels of the light decoder at paper scale: `assumed`, four times the miniature's.
LIGHT_WIDTH = 256


def light_decoder_counts(grid: Grid, latent_channels: int = MOBILE.in_channels) -> LayerCount:
    """This project's decoder at paper scale; its width is `assumed`."""
    return decoder_counts(grid, channels=latent_channels, width=LIGHT_WIDTH)["total"]


@cache
def ltx_decoder_counts(grid: Grid) -> LayerCount:
    """LTX-Video's own decoder as diffusers builds it (8x32x32, 128 latent channels)."""
    from diffusers import AutoencoderKLLTXVideo

    with torch.device("meta"):
        return module_counts(AutoencoderKLLTXVideo().decoder, torch.empty(1, MOBILE.in_channels, *grid))


@cache
def ltx_transformer_counts(grid: Grid) -> LayerCount:
    """One pass of LTX-Video's transformer as diffusers builds it, on 128 text tokens."""
    from diffusers import LTXVideoTransformer3DModel

    with torch.device("meta"):
        model = LTXVideoTransformer3DModel()
        latents = torch.empty(1, grid[0] * grid[1] * grid[2], model.config.in_channels)
        text, mask = torch.empty(1, 128, model.config.caption_channels), torch.ones(1, 128)
        sizes = dict(zip(("num_frames", "height", "width"), grid, strict=True))
        return module_counts(model, latents, text, torch.empty(1, 1), mask, **sizes)


@cache
def wan_transformer_counts(grid: Grid) -> LayerCount:
    """One pass of Wan 2.1's 1.3 B transformer on 512 text tokens; `grid` in latents of its 4x8x8 VAE."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, freq_dim=256
        )
        return module_counts(model, torch.empty(1, 16, *grid), torch.empty(1), torch.empty(1, 512, 4096))


def clip_text_counts(length: int = 77) -> LayerCount:
    """A text encoder of CLIP ViT-L/14's sizes."""
    hidden, layers, ffn, vocabulary, positions = 768, 12, 3072, 49_408, 77
    square = linear_count(length, hidden, hidden)
    scores = LayerCount(flops=4 * length * length * hidden, traffic_bytes=2 * 4 * length * hidden)
    both = linear_count(length, hidden, ffn) + linear_count(length, ffn, hidden)
    rest = (vocabulary + positions) * hidden + (2 * layers + 1) * 2 * hidden  # embeddings and norms: no products
    unmultiplied = LayerCount(params=rest, weight_bytes=2 * rest, traffic_bytes=2 * rest)
    return sum([*[square] * 4, scores, both] * layers, unmultiplied)

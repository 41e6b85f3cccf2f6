"""Cost of the denoiser at each compression ratio: counted at paper scale, timed in miniature.

Paper: the reason for the 8x32x32 VAE. One latent position is one token; the linear layers' cost grows with the tokens,
the attention scores' with their square. Times are of random weights: a forward pass costs the same whatever it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import median

import pandas as pd
import torch

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, block_flops_split, clip_flops, dit_counts, dit_flops, latent_grid
from mobivid_core.models.text import MAX_LENGTH
from mobivid_core.phone.turns import alternating_seconds


def ratio_name(ratio: Grid) -> str:
    """(8, 32, 32) -> "8x32x32"."""
    return "x".join(map(str, ratio))


def denoiser_costs(ratios: list[Grid], server: DiTConfig, mobile: DiTConfig) -> pd.DataFrame:
    """Counts for the paper's clip of 49 frames of 512 x 384 at each compression ratio, one row a ratio; `derived`.

    The server model takes 40 steps with guidance, the mobile one 4 without. Activation memory is of float16: the
    largest layer's with fused attention, and with the scores stored.
    """
    rows = []
    for ratio in ratios:
        grid = latent_grid(49, 384, 512, ratio)
        tokens = grid[0] * grid[1] * grid[2]
        large, small = (dit_flops(sizes, grid)["total"] for sizes in (server, mobile))
        peak = dit_counts(mobile, grid, 77)["total"].peak_bytes
        scores = max(mobile.self_heads) * tokens * tokens * 2
        rows.append({
            "ratio": ratio_name(ratio), "tokens": tokens,
            "server TFLOP per forward": large / 1e12, "mobile TFLOP per forward": small / 1e12,
            "attention scores, share": block_flops_split(server, grid)["self-attention scores"] / large,
            "server TFLOP per clip (40 steps, guided)": clip_flops(large, steps=40, guidance=True) / 1e12,
            "mobile TFLOP per clip (4 steps)": clip_flops(small, steps=4, guidance=False) / 1e12,
            "mobile activations, MB": peak / 1e6, "with stored scores, MB": (peak + scores) / 1e6,
        })  # fmt: skip
    return pd.DataFrame(rows)


@torch.no_grad()
def denoiser_seconds(sizes: DiTConfig, shapes: Mapping[str, tuple[int, ...]], repeats: int = 3) -> dict[str, float]:
    """Median seconds of one forward pass (batch 1) at several latent shapes (C, t, h, w), whose channels it takes."""
    from mobivid_core.models.dit import MobiVidTransformer3DModel

    text, mask = torch.randn(1, MAX_LENGTH, sizes.text_dim), torch.ones(1, MAX_LENGTH, dtype=torch.bool)
    calls = {}
    for name, shape in shapes.items():
        model = MobiVidTransformer3DModel.from_sizes(replace(sizes, in_channels=shape[0])).eval()
        calls[name] = partial(model, torch.randn(1, *shape), torch.tensor([500.0]), text, mask)
    return {name: median(own) for name, own in alternating_seconds(calls, repeats).items()}


@torch.no_grad()
def decoder_seconds(vaes: Mapping[str, object], shape: tuple[int, ...], repeats: int = 3) -> dict[str, float]:
    """Median seconds to decode one clip (3, T, H, W) by each VAE, in one run."""
    still = torch.zeros(1, *shape)
    calls = {name: partial(vae.decode_latents, vae.eval().encode_latents(still)) for name, vae in vaes.items()}
    return {name: median(own) for name, own in alternating_seconds(calls, repeats).items()}


def pareto(costs: list[float], qualities: list[float]) -> list[bool]:
    """Which points no other beats: none is as cheap and better, or cheaper and as good."""
    points = list(zip(costs, qualities, strict=True))
    return [not any((c <= x and q > y) or (c < x and q >= y) for c, q in points) for x, y in points]

"""Cost of the denoiser at each compression ratio: counted at paper scale, timed in miniature.

Paper: the reason for the 8x32x32 VAE. One latent position is one token; the linear layers' cost grows with the tokens,
the attention scores' with their square. Times are of random weights: a forward pass costs the same whatever it knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, block_flops_split, clip_flops, dit_counts, dit_flops, latent_grid
from mobivid_core.models.text import MAX_LENGTH


def ratio_name(ratio: Grid) -> str:
    """(8, 32, 32) -> "8x32x32"."""
    return "x".join(map(str, ratio))


def denoiser_costs(
    ratios: list[Grid], server: DiTConfig, mobile: DiTConfig, *, frames: int = 49, height: int = 384, width: int = 512
) -> pd.DataFrame:
    """Counts for one clip at each ratio, one row a ratio; `derived`.

    Args:
        ratios: Compression ratios.
        server: The teacher: 40 steps with guidance.
        mobile: The student: 4 steps without.
        frames: Frames of the clip.
        height: Pixels.
        width: Pixels.

    Returns:
        Tokens, TFLOP per forward pass and per clip, the share of attention scores, and activation memory in MB (fp16:
        the largest layer's with fused attention, and with the scores stored).
    """
    rows = []
    for ratio in ratios:
        grid = latent_grid(frames, height, width, ratio)
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


def alternating_seconds(calls: Mapping[str, Callable[[], object]], repeats: int = 3) -> dict[str, float]:
    """Median seconds of each call, all called in turns after one warm-up, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(own)) for name, own in seconds.items()}


@torch.no_grad()
def denoiser_seconds(sizes: DiTConfig, shapes: Mapping[str, tuple[int, ...]], repeats: int = 3) -> dict[str, float]:
    """Median seconds of one forward pass (batch 1) at several latent shapes, in one run.

    Args:
        sizes: The denoiser; its latent channels follow each shape.
        shapes: Name -> latent shape (C, t, h, w).
        repeats: Timed passes.
    """
    from mobivid_core.models.dit import MobiVidTransformer3DModel

    text, mask, timestep = (
        torch.randn(1, MAX_LENGTH, sizes.text_dim),
        torch.ones(1, MAX_LENGTH, dtype=torch.bool),
        torch.tensor([500.0]),
    )
    calls = {}
    for name, shape in shapes.items():
        model = MobiVidTransformer3DModel.from_sizes(replace(sizes, in_channels=shape[0])).eval()
        calls[name] = _call(model, torch.randn(1, *shape), timestep, text, mask)
    return alternating_seconds(calls, repeats)


@torch.no_grad()
def decoder_seconds(vaes: Mapping[str, object], shape: tuple[int, ...], repeats: int = 3) -> dict[str, float]:
    """Median seconds to decode one clip (3, T, H, W) by each VAE, in one run."""
    latents = {name: vae.eval().encode_latents(torch.zeros(1, *shape)) for name, vae in vaes.items()}
    return alternating_seconds({name: _call(vae.decode_latents, latents[name]) for name, vae in vaes.items()}, repeats)


def pareto(costs: list[float], qualities: list[float]) -> list[bool]:
    """Which points no other beats: none is as cheap and better, or cheaper and as good."""
    return [
        not any(
            (c <= cost and q > quality) or (c < cost and q >= quality) for c, q in zip(costs, qualities, strict=True)
        )
        for cost, quality in zip(costs, qualities, strict=True)
    ]


def _call(model: Callable, *inputs: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return model(*inputs)

    return call

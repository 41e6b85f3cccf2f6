"""Rotary position embedding over time, height and width: per attention head, or over all heads as in LTX-Video.

Paper: the server DiT's attention; the split over the three axes is assumed (as in current open video DiTs).
LTX-Video's table spans all heads: each keeps its slice of the unpruned model's, so that pruning one leaves the others'
positions. Simplified: positions are token indices, so a clip at another resolution sees longer ranges.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mobivid_core.errors import ParameterError

Grid = tuple[int, int, int]
Scale = tuple[float, float, float]
#: What LTX-Video divides positions by: frames, rows and columns at which a coordinate is 1.
LTX_BASE = (20, 2048, 2048)
RotaryTable = tuple[Tensor, Tensor]


def axis_pairs(head_dim: int) -> Grid:
    """Channel pairs that rotate with time, height and width; a remainder keeps height and width equal."""
    pairs, odd = divmod(head_dim, 2)
    if odd or pairs < 3:
        raise ParameterError(
            f"head_dim must be even and at least 6 (a channel pair for each of t, h, w), got {head_dim}"
        )
    base, rest = divmod(pairs, 3)
    return base + (rest == 1), base + (rest == 2), base + (rest == 2)


def rotary_table(
    grid: Grid, head_dim: int, theta: float = 10_000.0, device: torch.device | str | None = None
) -> RotaryTable:
    """Cosines and sines of every token's rotation, each (t*h*w, head_dim / 2) float32; w runs fastest.

    The j-th of an axis' n pairs turns by theta^(-j/n) radians a token.
    """
    angles = []
    # Built in every call: a buffer would stay on the meta device when diffusers loads a model lazily.
    for place, pairs in zip(scaled_positions(grid, None, device).unbind(-1), axis_pairs(head_dim), strict=True):
        exponent = torch.arange(pairs, device=device, dtype=torch.float32) / pairs
        angles.append(place[:, None] * torch.pow(theta, -exponent))
    table = torch.cat(angles, dim=-1)
    return table.cos(), table.sin()


def scaled_positions(grid: Grid, scale: Scale | None, device: torch.device | str | None = None) -> Tensor:
    """LTX-Video's coordinates of each token, (t*h*w, 3) float32.

    `scale` is `rope_interpolation_scale`: seconds a latent frame, pixels a latent row and column; None: token indices.
    """
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in grid]
    if scale is not None:
        # diffusers' order of operations: an ulp here is a thousandth of a radian in the fastest channels.
        axes = [axis * s / base for axis, s, base in zip(axes, scale, LTX_BASE, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def spanning_table(positions: Tensor, heads: int, head_dim: int, theta: float = 10_000.0) -> RotaryTable:
    """LTX-Video's table over the inner width of the unpruned model's heads: each (..., heads, N, head_dim / 2) float32.

    `positions` are (..., N, 3). Pairs (2i, 2i + 1) are stored as (i, i + head_dim / 2), as `rotate` turns them: the
    importer orders the rows of q and k accordingly. The fastest channel turns by theta * pi / 2 radians where a
    coordinate moves by 1/2.
    """
    width = heads * head_dim
    steps = torch.linspace(0.0, math.log(theta, theta), width // 6, device=positions.device, dtype=torch.float32)
    turns = theta**steps * math.pi / 2.0 * (positions.unsqueeze(-1) * 2 - 1)
    turns = turns.transpose(-1, -2).flatten(-2)
    still = turns.new_zeros(*turns.shape[:-1], width % 6 // 2)  # what three axes do not share out stays unturned
    turns = torch.cat([still, turns], dim=-1).unflatten(-1, (heads, head_dim // 2)).transpose(-2, -3)
    return turns.cos(), turns.sin()


def rotate(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate channel pairs (j, j + head_dim / 2) of tokens x (..., N, head_dim) by the angles of a table of N rows."""
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

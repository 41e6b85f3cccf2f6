"""Rotary position embedding over time, height and width, per attention head.

Paper: the server DiT's attention; the split over the three axes is assumed (as in current open video DiTs).
The table depends on the head's width alone, never on the number of heads: diffusers' LTX table spans all heads,
so that pruning one would change the positions of the others.

Simplified: positions are integers (token indices), so a clip at another resolution sees longer ranges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobivid_core.errors import ParameterError

Grid = tuple[int, int, int]
RotaryTable = tuple[Tensor, Tensor]


def axis_pairs(head_dim: int) -> Grid:
    """Channel pairs that rotate with time, height and width; a remainder keeps height and width equal.

    Raises:
        ParameterError: The head is odd, or too narrow to give each axis a pair.
    """
    pairs, odd = divmod(head_dim, 2)
    if odd or pairs < 3:
        raise ParameterError(
            f"head_dim must be even and at least 6 (a channel pair for each of t, h, w), got {head_dim}"
        )
    base, rest = divmod(pairs, 3)
    return (base + (rest == 1), base + (rest == 2), base + (rest == 2))


def rotary_table(
    grid: Grid, head_dim: int, theta: float = 10_000.0, device: torch.device | str | None = None
) -> RotaryTable:
    """Cosines and sines of every token's rotation.

    Args:
        grid: Tokens along t, h, w; tokens are ordered with w fastest.
        head_dim: Width of one head.
        theta: The j-th of an axis' n pairs turns by theta^(-j/n) radians a token.
        device: Where the table lies.

    Returns:
        (cos, sin), each (t*h*w, head_dim / 2) float32.
    """
    angles = []
    for axis, (length, pairs) in enumerate(zip(grid, axis_pairs(head_dim), strict=True)):
        # Built from arange in every call: a buffer would stay on the meta device when diffusers loads a model lazily,
        # and a converter folds these constants anyway.
        exponent = torch.arange(pairs, device=device, dtype=torch.float32) / pairs
        turns = torch.arange(length, device=device, dtype=torch.float32)[:, None] * torch.pow(theta, -exponent)
        shape = [1, 1, 1, pairs]
        shape[axis] = length
        angles.append(turns.reshape(shape).expand(*grid, pairs))
    table = torch.cat(angles, dim=-1).reshape(-1, head_dim // 2)
    return table.cos(), table.sin()


def rotate(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate channel pairs (j, j + head_dim / 2) of each token by its angles.

    Args:
        x: (..., N, head_dim) queries or keys.
        table: From `rotary_table`, N rows.

    Returns:
        Same shape and type as `x`. Dot products of two rotated tokens depend on their offset alone.
    """
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

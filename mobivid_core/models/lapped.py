"""Overlapping patches without additional coefficients: an orthogonal fold across each inner token border.

Block transforms leave visible borders, because nothing ties the blocks' errors together. The lapped transforms' remedy
(Malvar 1989; the MDCT's time-domain aliasing): before the block transform, the pixels b - 1 - i and b + i on both
sides of a border b are rotated into each other by the angle

    theta_i = pi / 4 (1 - (i + 1/2) / (patch / 2)),    i = 0 .. patch / 2 - 1,

45 degrees at the border and 0 in the token's middle; after decoding they are rotated back. The rotation is exactly
orthogonal, so that error energy is kept and PCA on folded tokens is still the best linear code of them.

In space only: along time it would break causality. The frame's edges have no partner and stay as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Lap(nn.Module):
    """The fold of frames (N, C, H, W) with tokens of `patch` x `patch` pixels, and its inverse.

    Args:
        patch: Side of a token in pixels, even; height and width must be multiples of it.
    """

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        half = patch // 2
        angle = math.pi / 4 * (1 - (torch.arange(half, dtype=torch.float64) + 0.5) / half)
        cos, sin = angle.cos().float(), angle.sin().float()
        # around a border: the pixels b - half .. b - 1, then b .. b + half - 1
        self.register_buffer("cos", torch.cat([cos.flip(0), cos]), persistent=False)
        self.register_buffer("sin", torch.cat([sin.flip(0), -sin]), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, C, H, W) -> folded frames, same shape."""
        return self._rotate(self._rotate(frames, 3, self.sin), 2, self.sin)

    def inverse(self, folded: Tensor) -> Tensor:
        """Folded frames (N, C, H, W) -> frames; also the adjoint, since the fold is orthogonal."""
        return self._rotate(self._rotate(folded, 3, -self.sin), 2, -self.sin)

    def _rotate(self, x: Tensor, axis: int, sin: Tensor) -> Tensor:
        """Rotate the pixel pairs around all inner borders of one axis."""
        half, borders = self.patch // 2, x.shape[axis] // self.patch - 1
        if borders < 1:
            return x
        first, inner, last = x.split([half, borders * self.patch, half], axis)
        pairs = inner.unflatten(axis, (borders, self.patch))  # five axes: Core ML takes no more
        shape = (self.patch, 1) if axis == 2 else (self.patch,)
        turned = pairs * self.cos.view(shape) + pairs.flip(axis + 1) * sin.view(shape)
        return torch.cat([first, turned.flatten(axis, axis + 1), last], axis)

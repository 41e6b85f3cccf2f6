"""The VAE's linear path: overlapping patches of each frame to coefficients, those of a group of frames to channels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_frames(clip: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B * T, C, H, W)."""
    return clip.transpose(1, 2).flatten(0, 1)


def to_clip(frames: Tensor, batch: int) -> Tensor:
    """(B * T, C, H, W) -> (B, C, T, H, W)."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)


class Lap(nn.Module):
    """Orthogonal fold of frames (N, C, H, W) across each inner border of tokens of `patch` x `patch` pixels.

    Block transforms leave visible borders. The lapped transforms' remedy (Malvar 1989): before the block transform, the
    pixels b - 1 - i and b + i on both sides of a border b are rotated into each other by the angle

        theta_i = pi / 4 (1 - (i + 1/2) / (patch / 2)),    i = 0 .. patch / 2 - 1,

    45 degrees at the border and 0 in the token's middle; after decoding they are rotated back. Error energy is kept,
    and PCA on folded tokens is still the best linear code of them. In space only: along time it would break causality.
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


class TimeMerge(nn.Module):
    """Joins frames into latent steps, the first alone, then `time` at a time: (B*T, C, h, w) -> (B, D, t, h, w)."""

    def __init__(self, time: int, channels: int, out: int) -> None:
        super().__init__()
        self.time = time
        self.first = nn.Conv2d(channels, out, 1)
        self.rest = nn.Conv2d(time * channels, out, 1)

    def forward(self, frames: Tensor, batch: int) -> Tensor:
        x = frames.unflatten(0, (batch, -1))
        merged = self.first(x[:, 0]).unsqueeze(2)
        if x.shape[1] == 1:
            return merged
        groups = x[:, 1:].unflatten(1, (-1, self.time)).flatten(2, 3).flatten(0, 1)
        return torch.cat([merged, to_clip(self.rest(groups), batch)], dim=2)


class TimeSplit(nn.Module):
    """Undoes `TimeMerge`: (B, D, t, h, w) -> (B*T, C, h, w)."""

    def __init__(self, time: int, channels: int, out: int) -> None:
        super().__init__()
        self.time = time
        self.first = nn.Conv2d(channels, out, 1, bias=False)
        self.rest = nn.Conv2d(channels, time * out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x[:, :, 0]).unsqueeze(1)
        steps = x.shape[2] - 1
        if steps == 0:
            return first.flatten(0, 1)
        groups = self.rest(to_frames(x[:, :, 1:])).unflatten(1, (self.time, -1))
        groups = groups.unflatten(0, (-1, steps)).flatten(1, 2)
        return torch.cat([first, groups], dim=1).flatten(0, 1)


class LinearEncoder(nn.Module):
    """PCA code of a clip: patches of each frame to coefficients, coefficients of a group of frames to channels.

    A patch of `patch` x `patch` pixels keeps `kept` coefficients, `time` frames are a group; `lapped` folds the frames
    across token borders first.
    """

    def __init__(self, time: int, patch: int, kept: int, channels: int, lapped: bool = False) -> None:
        super().__init__()
        self.patch = patch
        self.lap = Lap(patch) if lapped else None
        self.space = nn.Conv2d(3 * patch * patch, kept, 1, bias=False)
        self.merge = TimeMerge(time, kept, channels)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, t, h, w)."""
        return self.merge(self.space(self.tokens(clip)), clip.shape[0])

    def tokens(self, clip: Tensor) -> Tensor:
        """Folded patches of each frame, (B, 3, T, H, W) -> (B * T, 3 * patch^2, h, w)."""
        frames = to_frames(clip)
        return F.pixel_unshuffle(frames if self.lap is None else self.lap(frames), self.patch)

    def fit(self, clips: Tensor) -> None:
        """Fit both stages by PCA (uncentred), each channel scaled to unit mean square on `clips`."""
        kept, channels = self.space.out_channels, self.merge.first.out_channels
        # every fourth frame will do for the patches
        patches = (self.tokens(part[:, :, ::4]).movedim(1, -1).flatten(0, 2) for part in clips.split(16))
        basis, _ = _principal_axes(patches, 3 * self.patch * self.patch, kept)
        self.space.weight.copy_(basis.T[:, :, None, None])
        parts = (self.space(self.tokens(part)).unflatten(0, (len(part), -1)) for part in clips.split(16))
        coefficients = torch.cat(list(parts))
        groups = coefficients[:, 1:].unflatten(1, (-1, self.merge.time)).flatten(2, 3).flatten(0, 1)
        for layer, inputs in ((self.merge.first, coefficients[:, 0]), (self.merge.rest, groups)):
            if not len(inputs):  # images only: there is no group of frames to learn from
                continue
            rows = inputs.movedim(1, -1).reshape(-1, inputs.shape[1])
            axes, energy = _principal_axes([rows], rows.shape[1], min(channels, rows.shape[1]))
            weight = torch.zeros_like(layer.weight[:, :, 0, 0])
            weight[: axes.shape[1]] = (axes / energy.clamp(min=1e-6 * energy.max()).sqrt()).T
            layer.weight.copy_(weight[:, :, None, None])
            layer.bias.zero_()


class LinearDecoder(nn.Module):
    """Linear reconstruction of a clip from its code; arguments as for `LinearEncoder`."""

    def __init__(self, time: int, patch: int, kept: int, channels: int, lapped: bool = False) -> None:
        super().__init__()
        self.patch = patch
        self.lap = Lap(patch) if lapped else None
        self.split = TimeSplit(time, channels, kept)
        self.space = nn.Conv2d(kept, 3 * patch * patch, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, t, h, w) -> (B, 3, T, H, W)."""
        return to_clip(self.frames(self.split(z)), z.shape[0])

    def frames(self, coefficients: Tensor) -> Tensor:
        """Coefficients of frames (N, kept, h, w) -> frames (N, 3, H, W)."""
        frames = F.pixel_shuffle(self.space(coefficients), self.patch)
        return frames if self.lap is None else self.lap.inverse(frames)

    def invert(self, encoder: LinearEncoder) -> None:
        """Set to the pseudo-inverse of an encoder fitted by PCA."""
        self.space.weight.copy_(encoder.space.weight.transpose(0, 1))  # orthonormal rows
        for mine, theirs in ((self.split.first, encoder.merge.first), (self.split.rest, encoder.merge.rest)):
            mine.weight.copy_(torch.linalg.pinv(theirs.weight[:, :, 0, 0].double())[:, :, None, None])


def _principal_axes(rows: Iterable[Tensor], size: int, keep: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors (size, keep) and mean squares (keep,) of the uncentred second moment of row batches."""
    moment, count = 0.0, 0
    for part in rows:
        moment = moment + (part.T @ part).double()
        count += len(part)
    moment, basis = (moment / max(count, 1)).float(), None
    if size > 512 and moment.device.type == "cpu":
        # subspace iteration: on a CPU a full decomposition of a 3072-pixel patch would take most of a minute
        basis = torch.randn(size, min(size, keep + 32), generator=torch.Generator().manual_seed(0))
        for _ in range(12):
            basis, _ = torch.linalg.qr(moment @ basis)
    energy, axes = torch.linalg.eigh(moment if basis is None else basis.T @ moment @ basis)
    order = energy.argsort(descending=True)[:keep]
    axes = axes[:, order] if basis is None else basis @ axes[:, order]
    return axes, energy[order].clamp(min=0)

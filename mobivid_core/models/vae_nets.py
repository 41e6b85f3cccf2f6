"""The VAE's parts: the linear path and the convolutional nets around it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_frames(clip: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B * T, C, H, W)."""
    return clip.transpose(1, 2).flatten(0, 1)


def to_clip(frames: Tensor, batch: int) -> Tensor:
    """(B * T, C, H, W) -> (B, C, T, H, W)."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)


class TimeMerge(nn.Module):
    """Joins frames into latent steps, the first alone, then `time` at a time: (B*T, C, h, w) -> (B, D, t, h, w)."""

    def __init__(self, time: int, channels: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.time = time
        self.first = nn.Conv2d(channels, out, 1, bias=bias)
        self.rest = nn.Conv2d(time * channels, out, 1, bias=bias)

    def forward(self, frames: Tensor, batch: int) -> Tensor:
        x = frames.unflatten(0, (batch, -1))
        steps = (x.shape[1] - 1) // self.time
        merged = self.first(x[:, 0]).unsqueeze(2)
        if steps == 0:
            return merged
        groups = x[:, 1:].unflatten(1, (steps, self.time)).flatten(2, 3).flatten(0, 1)
        return torch.cat([merged, to_clip(self.rest(groups), batch)], dim=2)


class TimeSplit(nn.Module):
    """Undoes `TimeMerge`: (B, D, t, h, w) -> (B*T, C, h, w)."""

    def __init__(self, time: int, channels: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.time = time
        self.first = nn.Conv2d(channels, out, 1, bias=bias)
        self.rest = nn.Conv2d(channels, time * out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x[:, :, 0]).unsqueeze(1)
        steps = x.shape[2] - 1
        if steps == 0:
            return first.flatten(0, 1)
        groups = self.rest(to_frames(x[:, :, 1:])).unflatten(1, (self.time, -1))
        groups = groups.unflatten(0, (-1, steps)).flatten(1, 2)
        return torch.cat([first, groups], dim=1).flatten(0, 1)


class LinearEncoder(nn.Module):
    """PCA code of a clip: patches of each frame to coefficients, coefficients of a group of frames to channels."""

    def __init__(self, time: int, patch: int, kept: int, channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.space = nn.Conv2d(3 * patch * patch, kept, 1, bias=False)
        self.merge = TimeMerge(time, kept, channels, bias=False)

    def forward(self, clip: Tensor) -> Tensor:
        coefficients = self.space(F.pixel_unshuffle(to_frames(clip), self.patch))
        return self.merge(coefficients, clip.shape[0])

    def fit(self, clips: Tensor) -> None:
        """Fit both stages by PCA (uncentred), each channel scaled to unit mean square on `clips`."""
        kept, channels = self.space.out_channels, self.merge.first.out_channels
        basis, _ = _principal_axes(
            (_patches(part, self.patch) for part in clips.split(16)), 3 * self.patch * self.patch, kept
        )
        self.space.weight.copy_(basis.T[:, :, None, None])
        coefficients = torch.cat(
            [
                self.space(F.pixel_unshuffle(to_frames(part), self.patch)).unflatten(0, (part.shape[0], -1))
                for part in clips.split(16)
            ]
        )
        groups = coefficients[:, 1:].unflatten(1, (-1, self.merge.time)).flatten(2, 3).flatten(0, 1)
        for layer, inputs in ((self.merge.first, coefficients[:, 0]), (self.merge.rest, groups)):
            if not len(inputs):  # images only: there is no group of frames to learn from
                continue
            rows = inputs.movedim(1, -1).reshape(-1, inputs.shape[1])
            axes, energy = _principal_axes([rows], rows.shape[1], min(channels, rows.shape[1]))
            weight = torch.zeros_like(layer.weight[:, :, 0, 0])
            weight[: axes.shape[1]] = (axes / energy.clamp(min=1e-6 * energy.max()).sqrt()).T
            layer.weight.copy_(weight[:, :, None, None])


class LinearDecoder(nn.Module):
    """Linear reconstruction of a clip from its code."""

    def __init__(self, time: int, patch: int, kept: int, channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.split = TimeSplit(time, channels, kept, bias=False)
        self.space = nn.Conv2d(kept, 3 * patch * patch, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return to_clip(F.pixel_shuffle(self.space(self.split(z)), self.patch), z.shape[0])

    def invert(self, encoder: LinearEncoder) -> None:
        """Set to the pseudo-inverse of an encoder fitted by PCA."""
        self.space.weight.copy_(encoder.space.weight.transpose(0, 1))  # orthonormal rows
        for mine, theirs in ((self.split.first, encoder.merge.first), (self.split.rest, encoder.merge.rest)):
            mine.weight.copy_(torch.linalg.pinv(theirs.weight[:, :, 0, 0].double())[:, :, None, None])

    def channel_energy(self) -> Tensor:
        """Root of the pixel energy that one unit of each channel decodes to, (C,)."""
        return self.split.rest.weight[:, :, 0, 0].norm(dim=0)


class EncoderNet(nn.Module):
    """Convolutional correction of the posterior's mean and log-variance; its last layer starts at zero."""

    def __init__(self, time: int, patch: int, width: int, out: int) -> None:
        super().__init__()
        widths = _stage_widths(patch, width)
        self.stem = nn.Conv2d(48, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(ResBlock2d(a), nn.Conv2d(a, b, 3, stride=2, padding=1))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.merge = TimeMerge(time, widths[-1], 2 * width)
        self.mix = CausalResBlock3d(2 * width)
        self.out = _zero(nn.Conv3d(2 * width, out, 1))

    def forward(self, clip: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(to_frames(clip), 4))
        for stage in self.stages:
            x = stage(x)
        return self.out(F.silu(self.mix(self.merge(x, clip.shape[0]))))


class DecoderNet(nn.Module):
    """Convolutional correction of the linear reconstruction, across token borders; its last layer starts at zero."""

    def __init__(self, time: int, patch: int, width: int, channels: int) -> None:
        super().__init__()
        widths = _stage_widths(patch, width)[::-1]
        self.enter = CausalConv3d(channels, 2 * width)
        self.mix = nn.Sequential(CausalResBlock3d(2 * width), CausalResBlock3d(2 * width))
        self.split = TimeSplit(time, 2 * width, widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(ResBlock2d(a), nn.Conv2d(a, 4 * b, 3, padding=1), nn.PixelShuffle(2))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.see = nn.Conv2d(48, widths[-1], 3, padding=1)
        self.refine = nn.Sequential(ResBlock2d(widths[-1]), ResBlock2d(widths[-1]))
        self.out = _zero(nn.Conv2d(widths[-1], 48, 3, padding=1))

    def forward(self, z: Tensor, linear: Tensor) -> Tensor:
        x = self.split(self.mix(self.enter(z)))
        for stage in self.stages:
            x = stage(x)
        x = self.refine(x + self.see(F.pixel_unshuffle(to_frames(linear), 4)))
        return to_clip(F.pixel_shuffle(self.out(F.silu(x)), 4), z.shape[0])


class ResBlock2d(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = _zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class CausalConv3d(nn.Conv3d):
    """3x3x3 convolution that sees no later step: time is padded in front only."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 0, 0, 0, 2, 0)))


class CausalResBlock3d(nn.Module):
    """Residual block of two causal convolutions, the second starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = CausalConv3d(channels, channels)
        self.second = _zero(CausalConv3d(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def _stage_widths(patch: int, width: int) -> list[int]:
    """Channels from a quarter of the resolution down to one token: half the width where pixels are many."""
    return [width // 2] + [width] * int(math.log2(patch // 4))


def _zero(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _patches(clips: Tensor, patch: int) -> Tensor:
    """Rows (n, 3 * patch * patch) of all patches of every fourth frame."""
    tiles = F.pixel_unshuffle(to_frames(clips[:, :, ::4]), patch)
    return tiles.movedim(1, -1).flatten(0, 2)


def _principal_axes(rows, size: int, keep: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors (size, keep) and mean squares (keep,) of the uncentred second moment of row batches."""
    moment, count = torch.zeros(size, size, dtype=torch.float64), 0
    for part in rows:
        moment += (part.T @ part).double()
        count += len(part)
    moment = (moment / max(count, 1)).float()
    if size <= 512:
        energy, axes = torch.linalg.eigh(moment)
        order = energy.argsort(descending=True)[:keep]
        return axes[:, order], energy[order]
    # subspace iteration: a full decomposition of a 3072-pixel patch would take most of a minute
    basis = torch.randn(size, min(size, keep + 32), generator=torch.Generator().manual_seed(0))
    for _ in range(12):
        basis, _ = torch.linalg.qr(moment @ basis)
    energy, inner = torch.linalg.eigh(basis.T @ moment @ basis)
    order = energy.argsort(descending=True)[:keep]
    return basis @ inner[:, order], energy[order].clamp(min=0)

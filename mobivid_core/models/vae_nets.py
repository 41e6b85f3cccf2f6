"""The VAE's parts: the linear path and the convolutional net that corrects what it decodes."""

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
        self.merge = TimeMerge(time, kept, channels)

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
            layer.bias.zero_()


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


def fold(clip: Tensor, time: int, patch: int) -> Tensor:
    """Groups of frames as images: (B, 3, T, H, W) to (B * G, 3 * time * patch^2, H / patch, W / patch).

    The first frame is a group of its own, repeated as a still; G = 1 + (T - 1) / time.
    """
    b, c, t = clip.shape[:3]
    still = clip[:, :, :1].expand(-1, -1, time, -1, -1)
    groups = torch.cat([still, clip[:, :, 1:]], dim=2).unflatten(2, (1 + (t - 1) // time, time))
    return F.pixel_unshuffle(groups.transpose(1, 2).reshape(-1, c * time, *clip.shape[3:]), patch)


def unfold(groups: Tensor, batch: int, time: int, patch: int) -> Tensor:
    """Undoes `fold`; the first group, a still, gives the mean of its frames."""
    frames = F.pixel_shuffle(groups, patch).unflatten(1, (3, time)).unflatten(0, (batch, -1)).transpose(1, 2)
    first, rest = frames[:, :, 0].mean(2, keepdim=True), frames[:, :, 1:].flatten(2, 3)
    return torch.cat([first, rest], dim=2)


class DecoderNet(nn.Module):
    """Convolutional correction of the linear reconstruction, across token borders; its last layer starts at zero.

    Args:
        time: Frames of a group.
        patch: Side of a token in pixels, from 8.
        width: Channels at an eighth of the resolution.
        channels: Latent channels.
    """

    def __init__(self, time: int, patch: int, width: int, channels: int) -> None:
        super().__init__()
        self.time = time
        widths = _stage_widths(patch, width)[::-1]
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, 4 * b, 1), nn.PixelShuffle(2), *([ResBlock(b)] if b != width else []))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.before = CausalMix(width)
        self.fine = nn.Sequential(ResBlock(width), ResBlock(width))
        finest = width * 3 // 5
        self.up = nn.Sequential(nn.Conv2d(width, 4 * finest, 1), nn.PixelShuffle(2))
        self.see = nn.Conv2d(3 * time * 16, finest, 1)
        self.hear = nn.ModuleList(CausalMix(finest) for _ in range(2))
        self.refine = nn.ModuleList(ResBlock(finest) for _ in range(2))
        self.out = _zero(nn.Conv2d(finest, 3 * time * 16, 3, padding=1))

    def forward(self, z: Tensor, linear: Tensor) -> Tensor:
        """Latents (B, C, t, h, w) and their linear reconstruction (B, 3, T, H, W) -> its correction, same shape."""
        batch = z.shape[0]
        x = self.enter(_channels_last(to_frames(z)))
        for stage in self.stages:
            x = stage(x)
        x = self.up(self.fine(self.before(x, batch)))
        x = x + self.see(_channels_last(fold(linear, self.time, 4)))
        for hear, block in zip(self.hear, self.refine, strict=True):
            x = block(hear(x, batch))
        return unfold(self.out(F.silu(x)), batch, self.time, 4)


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = _zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class CausalMix(nn.Module):
    """Each group hears the one before it: x_g + W x_(g-1); never a later one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.earlier = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, groups: Tensor, batch: int) -> Tensor:
        """(B * G, C, h, w) -> same shape."""
        x = groups.unflatten(0, (batch, -1))
        heard = self.earlier(x[:, :-1].flatten(0, 1)).unflatten(0, (batch, -1))
        return torch.cat([x[:, :1], x[:, 1:] + heard], dim=1).flatten(0, 1)


def _stage_widths(patch: int, width: int) -> list[int]:
    """Channels from an eighth of the resolution down to one token a pixel, wider towards the tokens."""
    return [width, width * 5 // 4, width * 3 // 2][: int(math.log2(patch // 8)) + 1]


def _channels_last(x: Tensor) -> Tensor:
    """Laid out as fast convolutions want it; the values are the same."""
    return x.contiguous(memory_format=torch.channels_last)


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

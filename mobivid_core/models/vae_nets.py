"""The VAE's convolutional nets, which add to the linear path what depends on neighbouring tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.models.vae_linear import to_clip, to_frames


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

    `width` is its channels at an eighth of the resolution; a token has `patch` x `patch` pixels, from 8.
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


class EncoderNet(nn.Module):
    """Convolutional code of a clip beside the linear one, across token borders; each group of frames is coded alone."""

    def __init__(self, time: int, patch: int, width: int, channels: int) -> None:
        super().__init__()
        self.time = time
        widths, finest = _stage_widths(patch, width), width * 3 // 5
        self.enter = nn.Conv2d(3 * time * 16, finest, 1)
        self.refine = ResBlock(finest)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * a, b, 1), ResBlock(b))
            for a, b in zip([finest, *widths], widths, strict=False)
        )
        self.out = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) -> what is added to its linear latent, (B, C, t, h, w)."""
        x = self.refine(self.enter(_channels_last(fold(clip, self.time, 4))))
        for stage in self.stages:
            x = stage(x)
        return to_clip(self.out(F.silu(x)), clip.shape[0])

    @torch.no_grad()
    def start(self, clips: Tensor, size: float = 0.03) -> None:
        """Scale the last layer to an output of root mean square `size` on clips.

        From zero this net hardly moved: the linear code is optimal for a linear decoder, so that the first gradients
        say little. Noise of this size costs .004 dB of a code at 30 dB.
        """
        nn.init.zeros_(self.out.bias)
        self.out.weight.mul_(size / self(clips).square().mean().sqrt())


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

"""What the VAE trains on: videos in memory as bytes, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobivid_core.data.film import clips_dir, film_shots, shipped_film
from mobivid_core.data.render import render_clips
from mobivid_core.data.video_io import iterate_frames
from mobivid_core.errors import ParameterError, VideoError
from mobivid_core.profiles import Profile


@dataclass(frozen=True)
class VideoPool:
    """Videos of any lengths and sizes, with how often each is drawn.

    Attributes:
        videos: Each (3, T, H, W) uint8.
        weights: (N,) draws are proportional to these.
    """

    videos: Sequence[Tensor]
    weights: Tensor

    @classmethod
    def of(cls, clips: Tensor | Sequence[Tensor]) -> VideoPool:
        """A pool that draws every clip of (N, 3, T, H, W) uint8 equally often."""
        return cls(list(clips), torch.ones(len(clips)))

    def __len__(self) -> int:
        return len(self.videos)

    def joined(self, other: VideoPool) -> VideoPool:
        """Both pools, half of all draws from each."""
        weights = [own / own.sum() for own in (self.weights, other.weights)]
        return VideoPool([*self.videos, *other.videos], torch.cat(weights))

    def draw(self, batch: int, frames: int, crop: int, generator: torch.Generator, *, augment: bool = True) -> Tensor:
        """Random windows, float32 in [-1, 1].

        Args:
            batch: Clips B.
            frames: Frames T of a window.
            crop: Side of the square crop in pixels.
            generator: Source of randomness.
            augment: Mirror half of the clips, play half backwards, and one in four at double speed where it is
                long enough.

        Returns:
            (B, 3, T, crop, crop).

        Raises:
            ParameterError: A video is shorter or smaller than asked for.
        """
        which = torch.multinomial(self.weights, batch, replacement=True, generator=generator).tolist()
        chances = torch.rand(batch, 6, generator=generator)
        return to_float(
            torch.stack(
                [
                    _window(self.videos[n], frames, crop, row, augment)
                    for n, row in zip(which, chances.tolist(), strict=True)
                ]
            )
        )


def _window(video: Tensor, frames: int, crop: int, chance: list[float], augment: bool) -> Tensor:
    length, height, width = video.shape[1:]
    if length < frames or min(height, width) < crop:
        raise ParameterError(
            f"a video of {length} frames of {height}x{width} is too small for windows of {frames} frames of "
            f"{crop}x{crop}; leave it out, or train on smaller windows"
        )
    speed = 2 if augment and chance[0] < 0.25 and length > 2 * (frames - 1) else 1
    start, top, left = (
        int(u * (room + 1))
        for u, room in zip(chance[1:4], (length - 1 - speed * (frames - 1), height - crop, width - crop), strict=True)
    )
    window = video[:, start : start + speed * (frames - 1) + 1 : speed, top : top + crop, left : left + crop]
    mirrored = [axis for axis, u in ((-1, chance[4]), (1, chance[5])) if augment and u < 0.5]
    return window.flip(mirrored) if mirrored else window


def film_pool(frames: int = 17) -> VideoPool:
    """The film's training shots in full width, drawn in proportion to the windows they hold."""
    videos, weights = [], []
    whole: dict[str, Tensor] = {}
    for shot in film_shots("train"):
        if shot.frames < frames:
            continue
        if shot.file not in whole:
            with shipped_film(shot.file):
                whole[shot.file] = _whole_file(shot.file)
        videos.append(whole[shot.file][:, shot.first_frame : shot.first_frame + shot.frames])
        weights.append(shot.frames - frames + 1)
    return VideoPool(videos, torch.tensor(weights, dtype=torch.float32))


def _whole_file(name: str) -> Tensor:
    """All frames of a shipped file, (3, T, H, W) uint8; an error if any shot's are missing."""
    pictures = [torch.from_numpy(picture.copy()) for picture in iterate_frames(clips_dir() / name)]
    wanted = max(shot.first_frame + shot.frames for shot in film_shots() if shot.file == name)
    if len(pictures) < wanted:
        raise VideoError(f"{name}: breaks off after {len(pictures)} of {wanted} frames")
    return torch.stack(pictures).movedim(-1, 0)


def captioned_clips(count: int, *, frames: int, size: int) -> Tensor:
    """The first `count` captioned clips of the split `train`, (N, 3, T, H, W) uint8, rendered a few at a time."""
    parts = [
        to_bytes(render_clips("train", range(i, min(i + 16, count)), frames=frames, size=size).clips)
        for i in range(0, count, 16)
    ]
    return torch.cat(parts)


def training_pool(profile: Profile) -> VideoPool:
    """The film's shots and as many draws of captioned clips; a handful of clips where the profile only proves code."""
    drawn = VideoPool.of(captioned_clips(1024 if profile.meaningful else 16, frames=profile.frames, size=profile.size))
    return film_pool(profile.frames).joined(drawn) if profile.meaningful else drawn


def to_bytes(clips: Tensor) -> Tensor:
    """[-1, 1] float to uint8."""
    return clips.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_float(clips: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return clips.to(torch.float32, copy=True).div_(127.5).sub_(1)  # in place: a set to fit on takes a gigabyte

"""Training data of the VAE: videos in memory as bytes, on any device, and random crops of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.film import clips_dir, film_shots, shipped_film
from mobivid_core.data.render import render_clips
from mobivid_core.data.video_io import iterate_frames
from mobivid_core.data.video_source import av
from mobivid_core.errors import ParameterError, VideoError
from mobivid_core.profiles import Profile

#: Share of the VAE's training draws that are film shots; the rest are captioned clips.
FILM_SHARE = 0.3


@dataclass(frozen=True)
class VideoPool:
    """Videos of any lengths and sizes, with how often each is drawn."""

    videos: Sequence[Tensor]  # each (3, T, H, W) uint8
    weights: Tensor  # (N,) draws are proportional to these

    @classmethod
    def of(cls, clips: VideoPool | Tensor | Sequence[Tensor]) -> VideoPool:
        """A pool that draws every clip of (N, 3, T, H, W) uint8 equally often; a pool as it is."""
        return clips if isinstance(clips, VideoPool) else cls(list(clips), torch.ones(len(clips)))

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def side(self) -> int:
        """The shortest side of any video in pixels."""
        return min(min(video.shape[2:]) for video in self.videos)

    def joined(self, other: VideoPool, share: float = 0.5) -> VideoPool:
        """Both pools; `share` of all draws come from this one."""
        weights = [part * own / own.sum() for part, own in ((share, self.weights), (1 - share, other.weights))]
        return VideoPool([*self.videos, *other.videos], torch.cat(weights))

    def to(self, device: torch.device | str) -> VideoPool:
        """The same pool with its videos on a device."""
        return VideoPool([video.to(device) for video in self.videos], self.weights)

    def draw(self, batch: int, frames: int, crop: int, generator: torch.Generator, *, augment: bool = True) -> Tensor:
        """Random windows, float32 (B, 3, T, crop, crop) in [-1, 1], on the pool's device.

        The generator is the CPU's: all devices draw the same windows. Augmenting mirrors half of the clips, plays half
        backwards, and one in four at double speed where it is long enough.
        """
        which = torch.multinomial(self.weights, batch, replacement=True, generator=generator).tolist()
        chances = torch.rand(batch, 6, generator=generator).tolist()
        rows = zip(which, chances, strict=True)
        return to_float(torch.stack([_window(self.videos[n], frames, crop, row, augment) for n, row in rows]))


def _window(video: Tensor, frames: int, crop: int, chance: list[float], augment: bool) -> Tensor:
    """The window (3, frames, crop, crop) of a video (3, T, H, W) that six numbers in [0, 1) choose."""
    length, height, width = video.shape[1:]
    if length < frames or min(height, width) < crop:
        raise ParameterError(
            f"a video of {length} frames of {height}x{width} is too small for windows of {frames} frames of "
            f"{crop}x{crop}; leave it out, or train on smaller windows"
        )
    speed = 2 if augment and chance[0] < 0.25 and length > 2 * (frames - 1) else 1
    span = speed * (frames - 1) + 1
    start, top, left = (
        int(u * (room + 1)) for u, room in zip(chance[1:4], (length - span, height - crop, width - crop), strict=True)
    )
    clip = video[:, start : start + span : speed, top : top + crop, left : left + crop]
    turned = [axis for axis, u in ((-1, chance[4]), (1, chance[5])) if augment and u < 0.5]
    return clip.flip(turned) if turned else clip


def film_pool(frames: int = 17) -> VideoPool:
    """The film's training shots in full width, drawn in proportion to the windows they hold."""
    shots = [shot for shot in film_shots("train") if shot.frames >= frames]
    whole = {file: _whole_file(file) for file in {shot.file for shot in shots}}
    videos = [whole[shot.file][:, shot.first_frame : shot.first_frame + shot.frames] for shot in shots]
    return VideoPool(videos, torch.tensor([shot.frames - frames + 1.0 for shot in shots]))


def _whole_file(name: str) -> Tensor:
    """All frames of a shipped file, (3, T, H, W) uint8; an error if any shot's are missing."""
    path = clips_dir() / name
    wanted = max(shot.first_frame + shot.frames for shot in film_shots() if shot.file == name)
    with shipped_film(name):
        frames = iterate_frames(path) if av else _by_opencv(path)
        pictures = [torch.from_numpy(picture.copy()) for picture in frames]
        if len(pictures) < wanted:
            raise VideoError(f"{name}: breaks off after {len(pictures)} of {wanted} frames")
    return torch.stack(pictures).movedim(-1, 0)


def _by_opencv(path: Path) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) of a plain file: for machines without PyAV, whose pixels may differ by a grey level or two."""
    import cv2

    video = cv2.VideoCapture(str(path))
    while (read := video.read())[0]:
        yield read[1][..., ::-1]


def captioned_clips(count: int, *, frames: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """The first `count` captioned clips of the split `train`, (N, 3, T, H, W) uint8, rendered a few at a time."""
    step = 16 if torch.device(device).type == "cpu" else 256
    batches = (range(count)[i : i + step] for i in range(0, count, step))
    drawn = (render_clips("train", part, frames=frames, size=size, device=device) for part in batches)
    return torch.cat([to_bytes(batch.clips) for batch in drawn])


def training_pool(profile: Profile, count: int | None = None, device: torch.device | str = "cpu") -> VideoPool:
    """The film's shots and `count` captioned clips, 30 and 70 % of the draws; no film where only code is proved."""
    if count is None:
        count = 16 if not profile.meaningful else 1024 if profile.from_shipped else 4096  # 0.9 and 3.4 GB
    drawn = VideoPool.of(captioned_clips(count, frames=profile.frames, size=profile.size, device=device))
    return film_pool(profile.frames).to(device).joined(drawn, FILM_SHARE) if profile.meaningful else drawn


def to_bytes(clips: Tensor) -> Tensor:
    """[-1, 1] float to uint8."""
    return clips.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_float(clips: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return clips.to(torch.float32, copy=True).div_(127.5).sub_(1)  # in place: a set to fit on takes a gigabyte

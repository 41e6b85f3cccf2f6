"""Render captioned clips on the fly: one large coloured object moves in front of a blurred background.

A clip is a function of (split, index) alone: the same on every run and in every batch. Objects are emoji drawings by
several artists, tinted by their luminance (one artist's are kept for `test`); backgrounds are plain, a gradient, a
photo or a frame of the shipped film, blurred as a lens would leave them.

`draw_scenes` chooses what each clip shows (numpy, some microseconds a clip), `paint` makes pixels of it (torch, on any
device). The same seed gives the same clip on a processor and, but for rounding, on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import VOCABULARY, ClipLabel, caption, label_from
from mobivid_core.data.pictures import FOCUS, blurred_images, image_number, sprite_numbers, sprites_of
from mobivid_core.errors import ParameterError

SPLITS = ("train", "val", "test", "judge")
#: Mean colour of each name, each channel in [0, 1].
HUES = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.92, 0.15),
    "green": (0.10, 0.70, 0.15),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.10, 0.20, 0.90),
    "purple": (0.60, 0.15, 0.75),
    "white": (0.98, 0.98, 0.98),
}
#: Brightness of those backgrounds, so that the object's colour stays the loud one.
_DIMMED = 0.65
_DRAWS = 24  # uniform numbers that decide a clip
#: Pixels painted together, all frames counted: what a processor's cache holds, and what a GPU needs to be busy.
_TOGETHER_CPU, _TOGETHER_GPU = 2**18, 2**26


@dataclass(frozen=True)
class RenderedClips:
    """A batch of captioned clips."""

    clips: Tensor  # (B, 3, T, H, W) float32 in [-1, 1]
    labels: list[ClipLabel]
    captions: list[str]  # words for each label
    masks: Tensor  # (B, T, H, W) bool, True on the object


@dataclass(frozen=True)
class Scenes:
    """What B clips show, before any pixel."""

    sprites: Tensor  # (B,) which drawing, of `sprites_of`
    tints: Tensor  # (B, 3) colour in [0, 1]
    mirrored: Tensor  # (B,) -1 where the drawing is mirrored, else 1
    angles: Tensor  # (B,) radians
    centres: Tensor  # (B, T, 2) x and y of the object, as shares of the side
    extents: Tensor  # (B, T) its size, as a share of the side
    kinds: Tensor  # (B,) index of the background's kind
    ends: Tensor  # (B, 2, 3) colours of a plain background (the first) or a gradient
    directions: Tensor  # (B,) radians, of the gradient
    images: Tensor  # (B,) which photo or film frame, in `blurred_images`
    crops: Tensor  # (B, 3) its crop: centre x, centre y, side, as shares of the image
    focus: Tensor  # (B,) its level of blur, 0 to `len(FOCUS)` - 1

    def __len__(self) -> int:
        return len(self.sprites)

    def rows(self, start: int, stop: int, device: torch.device | str) -> Scenes:
        """Scenes start to stop - 1, on a device."""
        return Scenes(*(getattr(self, f.name)[start:stop].to(device) for f in fields(self)))


def render_clips(
    split: str, indices: Iterable[int], *, frames: int = 17, size: int = 128, device: torch.device | str = "cpu"
) -> RenderedClips:
    """Render clips `indices` of a split, `size` pixels square, on the device where their tensors lie then.

    `train`, `val` and `judge` show trainable triples; every second clip of `test` shows a held-out one.
    """
    scenes, labels = draw_scenes(split, indices, frames)
    clips, masks = paint(scenes, size, device)
    return RenderedClips(clips, labels, [caption(label) for label in labels], masks)


def label_of(split: str, index: int) -> ClipLabel:
    """The label of a clip without rendering it."""
    return _drawn(split, index)[1]


def _drawn(split: str, index: int) -> tuple[np.ndarray, ClipLabel]:
    """The (_DRAWS,) uniform numbers that decide a clip, and its label."""
    if split not in SPLITS:
        raise ParameterError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    uniform = np.random.default_rng([SPLITS.index(split), index]).random(_DRAWS)
    return uniform, label_from(uniform[:3], held_out=split == "test" and bool(index % 2))


def draw_scenes(split: str, indices: Iterable[int], frames: int = 17) -> tuple[Scenes, list[ClipLabel]]:
    """Choose what clips show; returns scenes on the CPU, and their labels."""
    drawn = [_drawn(split, int(i)) for i in indices]
    u, labels = np.array([row for row, _ in drawn]).reshape(-1, _DRAWS), [label for _, label in drawn]
    part = "test" if split == "test" else "train"
    numbers = sprite_numbers(part)
    sprites = [numbers[x.shape][int(r * len(numbers[x.shape]))] for x, r in zip(labels, u[:, 3], strict=True)]
    tints = np.array([HUES[x.colour] for x in labels]).reshape(-1, 3) + 0.1 * (u[:, 4:7] - 0.5)
    centres, extents = _trajectories([x.motion for x in labels], u[:, 7:13], frames)
    kinds = np.array([VOCABULARY["background"].index(x.background) for x in labels], dtype=np.int64)
    first = 0.15 + 0.6 * u[:, 13:14] + 0.16 * (u[:, 14:17] - 0.5)
    other = first + np.where(first.mean(1, keepdims=True) > 0.45, -0.38, 0.38)
    images = np.array([image_number(x.background, part, r) for x, r in zip(labels, u[:, 18], strict=True)], np.int64)
    side = 0.7 + 0.3 * u[:, 19]
    crops = np.stack([side / 2 + (1 - side) * u[:, 20], side / 2 + (1 - side) * u[:, 21], side], 1)
    values = (
        np.array(sprites, np.int64),
        tints.clip(0, 1),
        np.where(u[:, 22] < 0.5, 1.0, -1.0),
        np.deg2rad(24 * (u[:, 12] - 0.5)),
        centres,
        extents,
        kinds,
        np.stack([first, other], 1).clip(0, 1),
        2 * np.pi * u[:, 17],
        images,
        crops,
        (len(FOCUS) - 1) * u[:, 23],
    )
    return Scenes(*(torch.from_numpy(v if v.dtype == np.int64 else v.astype(np.float32)) for v in values)), labels


def _trajectories(motions: list[str], u: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (B, T, 2) as x, y and extents (B, T), all as shares of the frame's side; u: (B, 6) uniform."""
    motion, time = np.array(motions, dtype=object), np.linspace(0, 1, frames)[None]
    extent = 0.48 + 0.12 * u[:, :1]
    extents = np.repeat(extent, frames, 1)
    centres = np.repeat(0.42 + 0.16 * u[:, None, 1:3], frames, 1)
    for axis, (back, forth) in enumerate((("left", "right"), ("up", "down"))):
        rows = (motion == back) | (motion == forth)
        sign = np.where(motion[rows] == back, -1.0, 1.0)[:, None]
        centres[rows, :, axis] = 0.5 + sign * (0.30 + 0.10 * u[rows, 3:4]) * (time - 0.5)
    rows = motion == "circling"
    turn = np.where(u[rows, 4:5] < 0.5, 1.0, -1.0)
    phase = 2 * np.pi * (u[rows, 3:4] + turn * time)
    radius = 0.14 + 0.06 * u[rows, 1:2]
    centres[rows] = 0.5 + radius[..., None] * np.stack([np.cos(phase), np.sin(phase)], -1)
    for name, ramp in (("growing", time), ("shrinking", 1 - time)):
        rows = motion == name
        small = 0.50 + 0.10 * u[rows, 3:4]
        extents[rows] = 1.2 * extent[rows] * (small + (1 - small) * ramp)
    return centres, extents


def paint(scenes: Scenes, size: int = 128, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Clips (B, 3, T, H, W) float32 in [-1, 1] and masks (B, T, H, W) of B scenes, on the device."""
    device = torch.device(device)
    shape = (len(scenes), scenes.extents.shape[1], size, size)
    chunk = max(1, (_TOGETHER_CPU if device.type == "cpu" else _TOGETHER_GPU) // math.prod(shape[1:]))
    clips = torch.empty(shape[0], 3, *shape[1:], device=device)
    masks = torch.empty(shape, dtype=torch.bool, device=device)
    with torch.autocast(device.type, enabled=False):  # a training in bfloat16 still gets exact pixels
        for i in range(0, len(scenes), chunk):
            _paint(scenes.rows(i, i + chunk, device), clips[i : i + chunk], masks[i : i + chunk])
    return clips, masks


def _paint(s: Scenes, clips: Tensor, masks: Tensor) -> None:
    """Paint scenes into `clips` (B, 3, T, H, W) and `masks` (B, T, H, W)."""
    (count, frames, size, _), device = masks.shape, masks.device
    # where each output pixel lies in the drawing: the inverse of turning, scaling and moving it
    cos, sin, zoom = s.angles.cos()[:, None], s.angles.sin()[:, None], 1 / s.extents
    turn = torch.stack([torch.stack([cos * zoom, sin * zoom], -1), torch.stack([-sin * zoom, cos * zoom], -1)], -2)
    turn = turn * torch.stack([s.mirrored, torch.ones_like(s.mirrored)], -1)[:, None, :, None]
    shift = 2 * turn @ (0.5 - s.centres)[..., None]
    grid = F.affine_grid(torch.cat([turn, shift], -1).flatten(0, 1), [count * frames, 1, size, size], False)
    drawings = sprites_of(size, device)[s.sprites].repeat_interleave(frames, 0)
    planes = F.grid_sample(drawings, grid, align_corners=False).unflatten(0, (count, frames))
    tinted, white, alpha = planes.transpose(1, 2).unbind(1)  # (B, T, H, W) each, premultiplied by the opacity
    torch.gt(alpha, 0.5, out=masks)
    background = 2 * _background(s, size, device)
    # colour [0, 1] to clip [-1, 1]: (1 - alpha) (2 b - 1) + 2 c - alpha, in place: memory is what this costs
    torch.addcmul((background - 1)[:, :, None], alpha[:, None], -background[:, :, None], out=clips)
    clips.addcmul_(tinted[:, None], (2 * s.tints)[:, :, None, None, None]).add_(white[:, None], alpha=2)


def _background(s: Scenes, size: int, device: torch.device) -> Tensor:
    """(B, 3, H, W) in [0, 1]."""
    line = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    along = s.directions.cos()[:, None, None] * line + s.directions.sin()[:, None, None] * line[:, None]
    ramp = (along / 2.83 + 0.5) * (s.kinds == VOCABULARY["background"].index("gradient"))[:, None, None]
    start, end = s.ends[:, 0, :, None, None], s.ends[:, 1, :, None, None]
    drawn = (start + ramp[:, None] * (end - start)).clamp(0, 1)
    images = blurred_images(device)
    theta = torch.zeros(len(s), 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = s.crops[:, 2]
    theta[:, :, 2] = 2 * s.crops[:, :2] - 1
    grid = F.affine_grid(theta, [len(s), 1, size, size], False)
    level = s.focus.floor().clamp(max=len(FOCUS) - 2).long()
    sharper, softer = (
        F.grid_sample(images[s.images, level + k], grid, align_corners=False, padding_mode="border") for k in (0, 1)
    )
    blurred = torch.lerp(sharper, softer, (s.focus - level)[:, None, None, None])
    return torch.where((s.kinds >= 2)[:, None, None, None], _DIMMED * blurred, drawn)

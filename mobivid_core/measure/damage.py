"""Known ways of spoiling real clips, and which measures exist to notice each: `trials` checks that they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.render import RenderedClips
from mobivid_core.measure.borders import TOKEN
from mobivid_core.measure.minivbench import SEMANTIC

#: Distances from real clips, in judge features and in those of a network that never saw these clips.
FAR = ("frechet_real", "image_frechet_real")


@dataclass(frozen=True)
class Damage:
    """One way of spoiling clips, the measures that it must lower and those that it must raise.

    `apply` makes clips (B, 3, T, H, W) of the same captions from real ones; None where only rows are rearranged.
    """

    name: str
    apply: Callable[[RenderedClips], Tensor] | None
    lowers: tuple[str, ...] = ()
    raises: tuple[str, ...] = ()


def blurred(drawn: RenderedClips) -> Tensor:
    """Gaussian blur, a standard deviation of a thirty-second of the side."""
    clips, sigma = drawn.clips, drawn.clips.shape[-1] / 32
    reach = int(3 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    frames = F.pad(clips.transpose(1, 2).reshape(-1, 1, *clips.shape[-2:]), (reach,) * 4, mode="replicate")
    frames = F.conv2d(F.conv2d(frames, kernel), kernel.transpose(2, 3))
    return frames.reshape(clips.transpose(1, 2).shape).transpose(1, 2)


def noisy(drawn: RenderedClips) -> Tensor:
    """Independent noise, a tenth of the range."""
    noise = torch.randn(drawn.clips.shape, generator=torch.Generator().manual_seed(0))
    return (drawn.clips + 0.2 * noise).clamp(-1, 1)


def token_grid(drawn: RenderedClips) -> Tensor:
    """Each token a little brighter or darker than it should be, from one latent step to the next: visible borders.

    A standard deviation of a twentieth of the range. Distances are not asked to see it: the judge's features do not.
    Hence `border_ratio`.
    """
    b, _, t, h, w = drawn.clips.shape
    grid = (b, 1, -(-t // 8), -(-h // TOKEN), -(-w // TOKEN))
    offset = 0.1 * torch.randn(grid, generator=torch.Generator().manual_seed(0))
    for axis, size in ((2, 8), (3, TOKEN), (4, TOKEN)):
        offset = offset.repeat_interleave(size, axis)
    return (drawn.clips + offset[:, :, :t, :h, :w]).clamp(-1, 1)


def frozen(drawn: RenderedClips) -> Tensor:
    """The middle frame throughout."""
    return drawn.clips[:, :, drawn.clips.shape[2] // 2, None].expand_as(drawn.clips)


def shuffled_frames(drawn: RenderedClips) -> Tensor:
    """The same frames in a random order."""
    order = torch.randperm(drawn.clips.shape[2], generator=torch.Generator().manual_seed(0))
    return drawn.clips[:, :, order]


def half_speed(drawn: RenderedClips) -> Tensor:
    """The first half, each frame twice."""
    return drawn.clips[:, :, torch.arange(drawn.clips.shape[2]) // 2]


def reversed_time(drawn: RenderedClips) -> Tensor:
    """Played backwards."""
    return drawn.clips.flip(2)


def wrong_colour(drawn: RenderedClips) -> Tensor:
    """Red becomes green, green blue, blue red."""
    return drawn.clips.roll(1, 1)


def other_object(drawn: RenderedClips) -> Tensor:
    """Half-way, the next clip's object takes over, on the same background."""
    late, t = drawn.clips.clone(), drawn.clips.shape[2] // 2
    _paste(late, drawn.masks.roll(-1, 0), drawn.clips.roll(-1, 0))
    return torch.cat([drawn.clips[:, :, :t], late[:, :, t:]], 2)


def other_background(drawn: RenderedClips) -> Tensor:
    """The next clip with another background, under this clip's object."""
    behind = drawn.clips.roll(-1, 0).clone()
    _paste(behind, drawn.masks, drawn.clips)
    return behind


def drifting_background(drawn: RenderedClips) -> Tensor:
    """The background grows brighter from frame to frame; the object stays as it is."""
    t = drawn.clips.shape[2]
    ramp = torch.linspace(-0.3, 0.3, t).view(1, 1, t, 1, 1)
    return torch.where(drawn.masks[:, None], drawn.clips, (drawn.clips + ramp).clamp(-1, 1))


#: A generator that knows a few clips only; here one clip in 13, as 20 of 256.
COLLAPSE = "few clips, repeated"
DAMAGES: tuple[Damage, ...] = (
    Damage("blur", blurred, ("imaging_quality", "sharpness"), FAR),
    Damage(
        "noise", noisy, ("imaging_quality", "temporal_flickering", "background_consistency", "motion_smoothness"), FAR
    ),
    Damage("token grid", token_grid, (), ("border_ratio",)),
    Damage("frozen video", frozen, ("dynamic_degree", "action", "action_flow"), FAR),
    Damage(
        "shuffled frames",
        shuffled_frames,
        ("motion_smoothness", "temporal_flickering", "action", "action_flow"),
        ("warping_error", *FAR),
    ),
    Damage("half speed", half_speed, (), FAR),
    Damage("reversed", reversed_time, ("action", "action_flow")),
    Damage("wrong colour", wrong_colour, ("color", "color_pixels", "all_together")),
    Damage("other object half-way", other_object, ("subject_consistency", "motion_smoothness")),
    Damage("other background", other_background, ("scene", "all_together")),
    Damage("drifting background", drifting_background, ("background_consistency",)),
    Damage("another caption's clip", None, (*SEMANTIC, "all_together", "color_pixels", "action_flow")),
    Damage(COLLAPSE, None, (), FAR),
)


def _paste(target: Tensor, masks: Tensor, source: Tensor) -> None:
    """Write `source` (B, 3, T, H, W) into `target` where `masks` (B, T, H, W) are True."""
    where = masks[:, None].expand_as(target)
    target[where] = source[where]

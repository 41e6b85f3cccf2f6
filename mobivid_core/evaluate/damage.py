"""Does a measure move when it should? Real clips are damaged in known ways, and every measure is taken again.

A measure earns its place when each damage that it exists for moves it in the right direction, beyond chance (the 95 %
interval of the paired change) and far enough to be seen (beyond half the width of its own interval on intact clips).
One that does not is dropped from MiniVBench's averages by `failing`, not by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import ClipLabel
from mobivid_core.data.render import RenderedClips
from mobivid_core.evaluate.frechet import FrechetTarget
from mobivid_core.evaluate.measures import ClipMeasures
from mobivid_core.evaluate.metrics import bootstrap_interval
from mobivid_core.evaluate.minivbench import DISTANCES, QUALITY, SEMANTIC, Reference, dimension_table

_DISTANCES = ("frechet_real", "image_frechet_real")
#: Measures that are tested.
TESTED = (*QUALITY, *SEMANTIC, "all_together", "color_pixels", "action_flow", "warping_error", *_DISTANCES)
#: Clips repeated by the collapse: one in so many (20 of 256).
_COLLAPSE = 12.8


@dataclass(frozen=True)
class Damage:
    """One way of spoiling clips.

    Attributes:
        name: As shown.
        apply: From real clips to clips (B, 3, T, H, W) of the same captions; None where only rows are rearranged.
        lowers: Measures that must fall.
        raises: Measures that must rise.
    """

    name: str
    apply: Callable[[RenderedClips], Tensor] | None
    lowers: tuple[str, ...] = ()
    raises: tuple[str, ...] = ()


def blurred(drawn: RenderedClips) -> Tensor:
    """Gaussian blur of a fiftieth of the side."""
    clips, sigma = drawn.clips, drawn.clips.shape[-1] / 50
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


_FAR = ("frechet_real", "image_frechet_real")
DAMAGES: tuple[Damage, ...] = (
    Damage("blur", blurred, ("imaging_quality",), _FAR),
    Damage(
        "noise", noisy, ("imaging_quality", "temporal_flickering", "background_consistency", "motion_smoothness"), _FAR
    ),
    Damage("frozen video", frozen, ("dynamic_degree", "action", "action_flow"), _FAR),
    Damage(
        "shuffled frames",
        shuffled_frames,
        ("motion_smoothness", "temporal_flickering", "action", "action_flow"),
        ("warping_error", *_FAR),
    ),
    Damage("half speed", half_speed, (), _FAR),
    Damage("reversed", reversed_time, ("action", "action_flow")),
    Damage("wrong colour", wrong_colour, ("color", "color_pixels", "all_together")),
    Damage("other object half-way", other_object, ("subject_consistency", "motion_smoothness")),
    Damage("other background", other_background, ("scene", "all_together")),
    Damage("drifting background", drifting_background, ("background_consistency",)),
    Damage("another caption's clip", None, (*SEMANTIC, "all_together", "color_pixels", "action_flow")),
    Damage("20 clips repeated", None, (), _FAR),
)


def effects(
    intact: ClipMeasures,
    damaged: dict[str, ClipMeasures],
    labels: list[ClipLabel],
    reference: Reference,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """How far each damage moves each measure.

    Args:
        intact: Measures of the undamaged clips.
        damaged: {damage name: measures of the same clips after it}; those that only rearrange rows are added here.
        labels: What each caption asked for.
        reference: Real clips to compare with.
        resamples: Bootstrap resamples of means; distances take a quarter.
        seed: Seed of the resampling.

    Returns:
        A row a damage and measure: damage, measure, intact, damaged, change, low, high (95 % of the paired change),
        noise (half the width of the measure's interval on intact clips), in_noise (change / noise), expected
        ("falls", "rises" or blank) and seen (blank where nothing is expected).
    """
    n, rows = len(intact), []
    table = dimension_table(intact, labels, reference)
    for damage in DAMAGES:
        moved, asked = damaged.get(damage.name, intact), labels
        if damage.name == "20 clips repeated":
            chosen = np.arange(n) % max(2, round(n / _COLLAPSE))
            moved, asked = intact[chosen], [labels[i] for i in chosen]
        elif damage.apply is None:
            asked = [*labels[1:], labels[0]]
        spoilt = dimension_table(moved, asked, reference)
        for name in TESTED:
            if name in _DISTANCES:
                before, change, noise = _distance_change(intact, moved, reference, name, max(20, resamples // 4), seed)
            else:
                before, low, high = bootstrap_interval(table[name], n=resamples, seed=seed)
                change, noise = bootstrap_interval(spoilt[name] - table[name], n=resamples, seed=seed), (high - low) / 2
            rows.append((damage.name, name, before, before + change[0], *change, noise))
    frame = pd.DataFrame(rows, columns=["damage", "measure", "intact", "damaged", "change", "low", "high", "noise"])
    return _judged(frame)


def verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Which measures moved whenever they should have.

    Args:
        frame: From `effects`.

    Returns:
        A row a measure: measure, must_move (damages it exists for), missed (those that it did not see), weakest (the
        smallest of the expected changes over the noise), verdict ("kept" or "dropped").
    """
    rows = []
    for name, group in frame[frame.expected != ""].groupby("measure", sort=False):
        missed = group[~group.seen.astype(bool)]
        rows.append(
            {
                "measure": name,
                "must_move": ", ".join(group.damage),
                "missed": ", ".join(missed.damage),
                "weakest": group.in_noise.abs().min(),
                "verdict": "dropped" if len(missed) else "kept",
            }
        )
    return pd.DataFrame(rows)


def failing(frame: pd.DataFrame) -> tuple[str, ...]:
    """Measures that missed a damage they exist for, from `effects`."""
    table = verdicts(frame)
    return tuple(table.measure[table.verdict == "dropped"])


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    """Add size against noise, what was expected, and whether it was seen."""
    falls = {(d.name, m) for d in DAMAGES for m in d.lowers}
    rises = {(d.name, m) for d in DAMAGES for m in d.raises}
    keys = list(zip(frame.damage, frame.measure, strict=True))
    frame["in_noise"] = frame.change / frame.noise.clip(lower=1e-6)
    frame["expected"] = ["falls" if key in falls else "rises" if key in rises else "" for key in keys]
    large = frame.change.abs() > frame.noise
    seen = np.where(frame.expected == "falls", frame.high < 0, frame.low > 0) & large
    frame["seen"] = [str(bool(s)) if e else "" for s, e in zip(seen, frame.expected, strict=True)]
    return frame


def _distance_change(
    intact: ClipMeasures, moved: ClipMeasures, reference: Reference, name: str, resamples: int, seed: int
) -> tuple[float, tuple[float, float, float], float]:
    """Distance of intact clips, the paired change with its interval, and half the width of the first's interval."""
    ours, theirs = DISTANCES[name]
    target = getattr(reference, theirs)
    pair = [FrechetTarget(getattr(m, ours), target) for m in (intact, moved)]
    rng = np.random.default_rng(seed)
    rows = [rng.integers(len(intact), size=len(intact)) for _ in range(resamples)]
    before, after = (np.array([side.distance(), *(side.distance(r) for r in rows)]) for side in pair)
    change = after - before
    low, high = np.quantile(change[1:] + change[0] - change[1:].mean(), [0.025, 0.975])
    ends = np.quantile(before[1:], [0.025, 0.975])
    return float(before[0]), (float(change[0]), float(low), float(high)), float(ends[1] - ends[0]) / 2


def _paste(target: Tensor, masks: Tensor, source: Tensor) -> None:
    """Write `source` (B, 3, T, H, W) into `target` where `masks` (B, T, H, W) are True."""
    where = masks[:, None].expand_as(target)
    target[where] = source[where]

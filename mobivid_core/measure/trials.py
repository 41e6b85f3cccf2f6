"""Trials of the measures: damage real clips in known ways and test that each measure moves as it should.

A measure earns its place when each damage that it exists for moves it in the right direction, beyond chance (the 95 %
interval of the paired change) and far enough to be seen (beyond half the width of its own interval on intact clips).
One that does not is dropped from MiniVBench's averages by `failing`, not by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from mobivid_core.data.captions import ClipLabel
from mobivid_core.data.render import RenderedClips
from mobivid_core.measure import intervals
from mobivid_core.measure.borders import TOKEN
from mobivid_core.measure.frechet import paired_distances
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.judge import Judge
from mobivid_core.measure.measures import ClipMeasures, measure, render_batches
from mobivid_core.measure.minivbench import PIXELS, QUALITY, SEMANTIC, Reference, dimension_table, distance_features
from mobivid_core.measure.quality import ImagingReference

#: Distances from real clips, in judge features and in those of a network that never saw these clips.
FAR = ("frechet_real", "image_frechet_real")
#: Measures that are tested.
TESTED = (*QUALITY, *SEMANTIC, "all_together", "color_pixels", "action_flow", "warping_error", *PIXELS, *FAR)
#: Trial clips have indices from here on, the clips they are compared with from twice as far: never an evaluated one.
TRIAL_START = 2_000_000
_COLLAPSE_SHARE = 20 / 256


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


def shuffled_frames(drawn: RenderedClips) -> Tensor:
    """The same frames in a random order."""
    return drawn.clips[:, :, torch.randperm(drawn.clips.shape[2], generator=torch.Generator().manual_seed(0))]


def other_object(drawn: RenderedClips) -> Tensor:
    """Half-way, the next clip's object takes over, on the same background."""
    late, t = torch.where(drawn.masks.roll(-1, 0)[:, None], drawn.clips.roll(-1, 0), drawn.clips), drawn.clips.shape[2]
    return torch.cat([drawn.clips[:, :, : t // 2], late[:, :, t // 2 :]], 2)


def drifting_background(drawn: RenderedClips) -> Tensor:
    """The background grows brighter from frame to frame; the object stays as it is."""
    ramp = torch.linspace(-0.3, 0.3, drawn.clips.shape[2]).view(1, 1, -1, 1, 1)
    return torch.where(drawn.masks[:, None], drawn.clips, (drawn.clips + ramp).clamp(-1, 1))


INTACT = Damage("none", lambda drawn: drawn.clips)
#: A generator that knows a few clips only; here one clip in 13, as 20 of 256.
COLLAPSE = "few clips, repeated"
_SMOOTH, _ACTION = "motion_smoothness", ("action", "action_flow")
DAMAGES: tuple[Damage, ...] = (
    Damage("blur", blurred, ("imaging_quality", "sharpness"), FAR),
    Damage("noise", noisy, ("imaging_quality", "temporal_flickering", "background_consistency", _SMOOTH), FAR),
    Damage("token grid", token_grid, (), ("border_ratio",)),
    # the middle frame throughout
    Damage(
        "frozen video",
        lambda d: d.clips[:, :, d.clips.shape[2] // 2, None].expand_as(d.clips),
        ("dynamic_degree", *_ACTION),
        FAR,
    ),
    Damage("shuffled frames", shuffled_frames, (_SMOOTH, "temporal_flickering", *_ACTION), ("warping_error", *FAR)),
    # the first half, each frame twice
    Damage("half speed", lambda d: d.clips[:, :, torch.arange(d.clips.shape[2]) // 2], (), FAR),
    Damage("reversed", lambda d: d.clips.flip(2), _ACTION),
    # red becomes green, green blue, blue red
    Damage("wrong colour", lambda d: d.clips.roll(1, 1), ("color", "color_pixels", "all_together")),
    Damage("other object half-way", other_object, ("subject_consistency", _SMOOTH)),
    # the next clip with another background, under this clip's object
    Damage(
        "other background",
        lambda d: torch.where(d.masks[:, None], d.clips, d.clips.roll(-1, 0)),
        ("scene", "all_together"),
    ),
    Damage("drifting background", drifting_background, ("background_consistency",)),
    Damage("another caption's clip", None, (*SEMANTIC, "all_together", "color_pixels", "action_flow")),
    Damage(COLLAPSE, None, (), FAR),
)


def run_trials(judge: Judge, *, frames: int, size: int, n: int = 48, progress: bool = True) -> pd.DataFrame:
    """`effects` of every damage to n real clips that are drawn here; distances are taken from a third more others."""
    found, labels = {d.name: [] for d in (INTACT, *DAMAGES) if d.apply}, []
    sizes = {"frames": frames, "size": size}
    with tqdm(total=n, desc="testing the measures", disable=not progress, ascii=True, mininterval=2) as bar:
        for drawn in render_batches("test", TRIAL_START, n, **sizes):
            labels += drawn.labels
            for damage in (INTACT, *DAMAGES):
                if damage.apply:
                    found[damage.name].append(measure(damage.apply(drawn), judge, independent=True))
            bar.update(len(drawn.labels))
    damaged = {name: ClipMeasures.join(parts) for name, parts in found.items()}
    far = ClipMeasures.join(
        measure(drawn.clips, judge, quality=False, independent=True)
        for drawn in render_batches("test", 2 * TRIAL_START, max(8, n * 4 // 3), **sizes)
    )
    intact, axes = damaged.pop(INTACT.name), ImageAxes.fit(far.image_features)
    imaging, looks = ImagingReference.fit(intact.imaging), axes.project(far.image_features)
    reference = Reference(imaging, far.features, image_axes=axes, image_real=looks)
    return effects(intact, damaged, labels, reference)


def effects(
    intact: ClipMeasures,
    damaged: dict[str, ClipMeasures],
    labels: Sequence[ClipLabel],
    reference: Reference,
    *,
    resamples: int = 200,
) -> pd.DataFrame:
    """How far each damage moves each measure of the intact clips; `damaged` is by the name of what makes clips.

    Distances take a quarter of the resamples.

    Returns:
        A row a damage and measure: damage, measure, intact, damaged, change, low, high (95 % of the paired change),
        noise (half the width of the measure's interval on intact clips), in_noise (change / noise), expected
        ("falls", "rises" or blank) and seen (blank where nothing is expected).
    """
    n, rows = len(intact), []
    table = dimension_table(intact, labels, reference)
    for damage in DAMAGES:
        moved, asked = damaged.get(damage.name, intact), labels
        if damage.name == COLLAPSE:
            chosen = np.arange(n) % max(2, round(n * _COLLAPSE_SHARE))
            moved, asked = intact[chosen], [labels[i] for i in chosen]
        elif damage.apply is None:
            asked = [*labels[1:], labels[0]]
        spoilt = dimension_table(moved, asked, reference)
        for name in TESTED:
            if name in FAR:
                before, change, noise = _distance_change(intact, moved, reference, name, max(20, resamples // 4))
            else:
                before, low, high = intervals.mean(table[name], resamples=resamples)
                change = intervals.difference(spoilt[name], table[name], resamples=resamples)
                # clips that all score alike have an interval without width: a share then has the grain of one clip
                noise = max((high - low) / 2, 1 / n if np.isin(table[name], (0, 1)).all() else 1e-4)
            rows.append((damage.name, name, before, before + change[0], *change, noise))
    frame = pd.DataFrame(rows, columns=["damage", "measure", "intact", "damaged", "change", "low", "high", "noise"])
    return _judged(frame)


def verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Which measures moved whenever they should have, from `effects`: a row a measure.

    must_move (damages it exists for), missed (those that it did not see), weakest (the smallest of the expected changes
    over the noise), verdict: "kept", "dropped" from the averages, or "marked" where it never counted in one.
    """
    rows = []
    for name, group in frame[frame.expected != ""].groupby("measure", sort=False):
        missed = group[group.seen != "True"]
        verdict = ("dropped" if name in (*QUALITY, *SEMANTIC) else "marked") if len(missed) else "kept"
        told = (", ".join(group.damage), ", ".join(missed.damage), group.in_noise.abs().min())
        rows.append((name, *told, verdict))
    return pd.DataFrame(rows, columns=["measure", "must_move", "missed", "weakest", "verdict"])


def failing(frame: pd.DataFrame) -> tuple[str, ...]:
    """Measures that missed a damage they exist for, from `effects`; those of the averages are left out of them."""
    table = verdicts(frame)
    return tuple(table.measure[table.verdict != "kept"])


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    """Add size against noise, what was expected, and whether it was seen."""
    falls = {(d.name, m) for d in DAMAGES for m in d.lowers}
    rises = {(d.name, m) for d in DAMAGES for m in d.raises}
    keys = list(zip(frame.damage, frame.measure, strict=True))
    frame["in_noise"] = frame.change / frame.noise
    frame["expected"] = ["falls" if key in falls else "rises" if key in rises else "" for key in keys]
    large = frame.change.abs() > frame.noise
    seen = np.where(frame.expected == "falls", frame.high < 0, frame.low > 0) & large
    frame["seen"] = [str(bool(s)) if e else "" for s, e in zip(seen, frame.expected, strict=True)]
    return frame


def _distance_change(
    intact: ClipMeasures, moved: ClipMeasures, reference: Reference, name: str, resamples: int
) -> tuple[float, intervals.Interval, float]:
    """Distance of intact clips, the paired change with its interval, and half the width of the first's interval."""
    (ours, target), (spoilt, _) = (distance_features(m, reference, name) for m in (intact, moved))
    before, after = paired_distances((ours, spoilt), target, resamples, seed=0).T
    first, change = (
        intervals.from_draws(draws[0], draws[1:], n=len(intact), centred=True) for draws in (before, after - before)
    )
    return first.value, change, max((first.high - first.low) / 2, 1e-9)

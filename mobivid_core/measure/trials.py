"""Trials of the measures: damage real clips in known ways and test that each measure moves as it should.

A measure earns its place when each damage that it exists for moves it in the right direction, beyond chance (the 95 %
interval of the paired change) and far enough to be seen (beyond half the width of its own interval on intact clips).
One that does not is dropped from MiniVBench's averages by `failing`, not by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from mobivid_core.data.captions import ClipLabel
from mobivid_core.measure import intervals
from mobivid_core.measure.damage import COLLAPSE, DAMAGES, FAR
from mobivid_core.measure.frechet import FrechetTarget
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.judge import Judge
from mobivid_core.measure.measures import ClipMeasures, measure, render_batches
from mobivid_core.measure.minivbench import PIXELS, QUALITY, SEMANTIC, Reference, dimension_table, distance_features
from mobivid_core.measure.quality import ImagingReference

#: Measures that are tested.
TESTED = (*QUALITY, *SEMANTIC, "all_together", "color_pixels", "action_flow", "warping_error", *PIXELS, *FAR)
#: Trial clips have indices from here on, the clips they are compared with from twice as far: never an evaluated one.
TRIAL_START = 2_000_000
_COLLAPSE_SHARE = 20 / 256


def run_trials(judge: Judge, *, frames: int, size: int, n: int = 48, progress: bool = True) -> pd.DataFrame:
    """`effects` of every damage to n real clips that are drawn here; distances are taken from a third more others."""
    intact, damaged, labels = [], {d.name: [] for d in DAMAGES if d.apply}, []
    sizes = {"frames": frames, "size": size}
    bar = tqdm(total=n, desc="testing the measures", disable=not progress, ascii=True, mininterval=2)
    for drawn in render_batches("test", TRIAL_START, n, **sizes):
        labels += drawn.labels
        intact.append(measure(drawn.clips, judge, independent=True))
        for damage in DAMAGES:
            if damage.apply:
                damaged[damage.name].append(measure(damage.apply(drawn), judge, independent=True))
        bar.update(len(drawn.labels))
    bar.close()
    others = [
        measure(drawn.clips, judge, quality=False, independent=True)
        for drawn in render_batches("test", 2 * TRIAL_START, max(8, n * 4 // 3), **sizes)
    ]
    whole = ClipMeasures.join(intact)
    far = ClipMeasures.join(others)
    axes = ImageAxes.fit(far.image_features)
    imaging, looks = ImagingReference.fit(whole.imaging), axes.project(far.image_features)
    reference = Reference(imaging, far.features, image_axes=axes, image_real=looks)
    return effects(whole, {k: ClipMeasures.join(v) for k, v in damaged.items()}, labels, reference)


def effects(
    intact: ClipMeasures,
    damaged: dict[str, ClipMeasures],
    labels: Sequence[ClipLabel],
    reference: Reference,
    *,
    resamples: int = 200,
) -> pd.DataFrame:
    """How far each damage moves each measure of the intact clips.

    `damaged` has the measures of the same clips after each damage that makes clips; those that only rearrange rows are
    added here. Distances take a quarter of the resamples.

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
                noise = max((high - low) / 2, _least_noise(table[name]))
            rows.append((damage.name, name, before, before + change[0], *change, noise))
    frame = pd.DataFrame(rows, columns=["damage", "measure", "intact", "damaged", "change", "low", "high", "noise"])
    return _judged(frame)


def verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Which measures moved whenever they should have, from `effects`.

    Returns:
        A row a measure: measure, must_move (damages it exists for), missed (those that it did not see), weakest (the
        smallest of the expected changes over the noise), verdict: "kept", "dropped" from the averages, or "marked"
        where it never counted in one.
    """
    rows = []
    for name, group in frame[frame.expected != ""].groupby("measure", sort=False):
        missed = group[group.seen != "True"]
        rows.append(
            {
                "measure": name,
                "must_move": ", ".join(group.damage),
                "missed": ", ".join(missed.damage),
                "weakest": group.in_noise.abs().min(),
                "verdict": ("dropped" if name in (*QUALITY, *SEMANTIC) else "marked") if len(missed) else "kept",
            }
        )
    return pd.DataFrame(rows)


def failing(frame: pd.DataFrame) -> tuple[str, ...]:
    """Measures that missed a damage they exist for, from `effects`; those of the averages are left out of them."""
    table = verdicts(frame)
    return tuple(table.measure[table.verdict != "kept"])


def _least_noise(values: np.ndarray) -> float:
    """Clips that all score alike have an interval without width: a share then has the grain of one clip."""
    return 1 / len(values) if np.isin(values, (0, 1)).all() else 1e-4


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
    pair = [FrechetTarget(*distance_features(m, reference, name)) for m in (intact, moved)]
    rng = np.random.default_rng(0)
    rows = [rng.integers(len(intact), size=len(intact)) for _ in range(resamples)]
    before, after = (np.array([side.distance(), *(side.distance(r) for r in rows)]) for side in pair)
    first, change = (
        intervals.from_draws(float(draws[0]), draws[1:], n=len(intact), centred=True)
        for draws in (before, after - before)
    )
    return first.value, change, max((first.high - first.low) / 2, 1e-9)

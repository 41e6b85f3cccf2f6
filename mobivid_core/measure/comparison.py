"""Comparing generators on the same captions and noises: ratios with paired intervals, and seconds a clip.

Answers question R1.3 (motion beside quality) and the paper's claim of a 20-fold faster sampler (C24). All rows of a
table share captions and noise, so resampling whole clips for both rows at once removes the luck of the draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mobivid_core.data.captions import ClipLabel
from mobivid_core.measure import intervals
from mobivid_core.measure.bars import BORDERS, SHARPNESS, Bar
from mobivid_core.measure.borders import sharpness_ratio
from mobivid_core.measure.frechet import excess_ratio_interval, ratio_interval
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.minivbench import ClipMeasures, Reference, dimension_table, space_features

if TYPE_CHECKING:
    from mobivid_core.measure.generation import Evaluation

#: Timed calls of a short sampler for each of a long one: a tenth of a second is easily disturbed.
SHORT_CALLS = 5


def mean_ratio(
    ours: ClipMeasures, theirs: ClipMeasures, labels: Sequence[ClipLabel], reference: Reference, name: str,
    *, seed: int = 0,
) -> Interval:  # fmt: skip
    """Ratio of two models' mean scores `name` of `minivbench.dimension_table`, in pairs of clips.

    Both measured the clips of `labels`, with the same noises; a denominator below one clip in n counts as one clip.
    """
    return intervals.ratio(*(dimension_table(m, labels, reference)[name] for m in (ours, theirs)), seed=seed)


def mean_change(
    ours: ClipMeasures, theirs: ClipMeasures, labels: Sequence[ClipLabel], reference: Reference
) -> Interval:
    """Difference of two models' shares of clips with every attribute right, as `mean_ratio`."""
    return intervals.difference(*(dimension_table(m, labels, reference)["all_together"] for m in (ours, theirs)))


def distance_ratio(ours: ClipMeasures, theirs: ClipMeasures, reference: Reference, *, seed: int = 0) -> Interval:
    """Ratio of two models' Frechet distances in the reference's trusted space, in pairs of clips.

    They are to the codec's reconstruction of other real clips, not to those clips themselves: the codec's flicker
    dominates the latter, and one unguided step then lies nearer than forty guided ones, and than the codec.
    Different numbers of clips, or features that were not measured, are a `ParameterError`.
    """
    (a, target), (b, _) = (space_features(m, reference, "reconstruction") for m in (ours, theirs))
    return ratio_interval(a, b, target, seed=seed)


def above_floor(
    ours: ClipMeasures, theirs: ClipMeasures, floor: ClipMeasures, reference: Reference, *, seed: int = 0
) -> Interval:
    """What our distance from the codec's clips has above its own, over what theirs has: see `excess_ratio_interval`.

    All three are distances from reconstructions of other real clips; `floor` are measures of reconstructions of the
    same captions' real clips, whose distance is that of two samples of one law.
    """
    (a, target), (b, _), (c, _) = (space_features(m, reference, "reconstruction") for m in (ours, theirs, floor))
    return excess_ratio_interval(a, b, c, target, seed=seed)


@dataclass(frozen=True)
class Seconds:
    """Seconds a clip of several samplers, measured in turns in one run: `taken` has the median of each turn."""

    taken: Mapping[str, Sequence[float]]

    def table(self) -> pd.DataFrame:
        """Columns sampler, seconds (median a clip), fastest, slowest (of the turns)."""
        rows = [(name, float(np.median(s)), min(s), max(s)) for name, s in self.taken.items()]
        return pd.DataFrame(rows, columns=["sampler", "seconds", "fastest", "slowest"])

    def followed_by(self, last: str) -> Seconds:
        """Each sampler together with what always follows it, turn by turn: sampling and decoding, say."""
        after = self.taken[last]
        rest = {name: own for name, own in self.taken.items() if name != last}
        return Seconds({name: [a + b for a, b in zip(own, after, strict=True)] for name, own in rest.items()})

    def faster(self, slow: str, fast: str) -> Interval:
        """How many times faster `fast` is, turn by turn; see `intervals.speed`."""
        return intervals.speed([self.taken[slow]], [self.taken[fast]])


def measure_seconds(
    samplers: dict[str, Callable[[], object]], *, turns: int = 6, clips: int = 1, long: Collection[str] = ()
) -> Seconds:
    """Time samplers, each of which makes `clips` clips when called, in turns: a busy moment hits all of them.

    One call each before the `turns` is not timed; six turns hold a median in 97 of 100 cases. The first call of `long`
    samplers is like any other: all of theirs are timed, and for each of them the others are called `SHORT_CALLS` times,
    of which the median counts.
    """
    for name in samplers.keys() - set(long):
        samplers[name]()
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    calls = {name: SHORT_CALLS if long and name not in long else 1 for name in samplers}
    for _ in range(turns):
        for name, count in calls.items():
            lasted = []
            for _ in range(count):
                began = time.perf_counter()
                samplers[name]()
                lasted.append((time.perf_counter() - began) / clips)
            taken[name].append(float(np.median(lasted)))
    return Seconds(taken)


@dataclass(frozen=True)
class Beside:
    """What a student's clips are held against, all of the same captions."""

    teacher: Evaluation  # guided, in full steps, same noises
    free: Mapping[int, Evaluation]  # 4 and 8 evaluations a clip: the best training-free sampler, same noises
    codec: ClipMeasures  # of the real clips through the VAE
    real: ClipMeasures  # of the real clips


def compare(ours: Evaluation, beside: Beside, reference: Reference, *, seed: int = 0) -> dict[str, Interval]:
    """What `DISTILL_BARS` ask of a student's clips.

    Returns:
        Intervals: "accuracy", "total" and "dynamic" over the teacher's; "gain4", "gain8": share of clips with every
        attribute right minus that of the best training-free sampler at so many network evaluations; "distance" over
        the teacher's, and "above_floor" after the codec's own is taken off both; "free4", "free8": distance over that
        sampler's; "borders", the border ratio; "sharpness", the energy over real clips'.
    """
    teacher, seeded, found = beside.teacher.measures, {"seed": seed}, {}
    pair = (ours.measures, teacher, ours.labels, reference)
    for title, name in (("accuracy", "all_together"), ("total", "total"), ("dynamic", "dynamic_degree")):
        found[title] = mean_ratio(*pair, name, **seeded)
    found["distance"] = distance_ratio(ours.measures, teacher, reference, **seeded)
    found["above_floor"] = above_floor(ours.measures, teacher, beside.codec, reference, **seeded)
    for count, rival in beside.free.items():
        found[f"gain{count}"] = mean_change(ours.measures, rival.measures, ours.labels, reference)
        found[f"free{count}"] = distance_ratio(ours.measures, rival.measures, reference, **seeded)
    found["borders"] = ours.scores.values["border_ratio"]
    found["sharpness"] = sharpness_ratio(ours.measures.sharpness, beside.real.sharpness, **seeded)
    return found


@dataclass(frozen=True)
class BesideTable:
    """Students' distances over those of what they are compared with: clips, over, value, low, high."""

    table: pd.DataFrame

    def finding(self) -> str:
        """One sentence for a finding: the ratios that bars ask for, and on which side of 1 each lies beyond chance."""
        parts = []
        for row in self.table[~self.table["over"].isin([OVER["distance"], OVER["free8"]])].itertuples():
            side = "closer beyond" if row.high < 1 else "farther beyond" if row.low > 1 else "within"
            parts.append(f"{row.clips} over {row.over} {row.value:.2f} [{row.low:.2f}, {row.high:.2f}], {side} chance")
        return f"Ratios of distances: {'; '.join(parts)}."


#: Keys of `compare` that are ratios of distances, and what stands below the line.
OVER = {
    "distance": "the teacher",
    "above_floor": "the teacher, both above the codec's",
    "free4": "the best training-free four evaluations",
    "free8": "the best training-free eight evaluations",
}


def beside_table(students: Mapping[str, Mapping[str, Interval]], four_over_forty: Interval) -> BesideTable:
    """What `compare` found of students' distances, and the teacher's in four guided Euler steps over its full ones."""
    found = {("teacher, 4 guided steps", "its full sampler"): four_over_forty}
    found |= {(who, OVER[key]): own[key] for who, own in students.items() for key in OVER if key in own}
    rows = [{"clips": who, "over": over, **intervals.cells(ratio)} for (who, over), ratio in found.items()]
    return BesideTable(pd.DataFrame(rows))


def _bars(who: str, speed: float) -> dict[str, Bar]:
    """What a four-step student has to reach; distances are in the space that passed the trials of the measures."""
    return {
        "accuracy": Bar(f"{who}: all attributes right, over the 40-step guided teacher", 0.95),
        "above_floor": Bar(f"{who}: distance above the codec's, over the teacher's", 1.25, at_least=False),
        "dynamic": Bar(f"{who}: dynamic degree over the teacher's", 0.9),
        "diversity": Bar(f"{who}: diversity over the teacher's", 0.9),
        "free4": Bar(f"{who}: distance over the best training-free four evaluations", 1.0, at_least=False),
        "borders": Bar(f"{who}: {BORDERS}", 1.8, at_least=False),
        "sharpness": Bar(f"{who}: {SHARPNESS}", 0.5),
        "speed": Bar(f"{who}: times faster than the teacher", speed),
    }


#: What the students have to reach, set beforehand.
DISTILL_BARS: dict[str, dict[str, Bar]] = {
    "student": _bars("pruned student", 35.0),
    "distilled": _bars("distilled teacher", 18.0),
}

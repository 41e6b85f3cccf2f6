"""Comparing generators on the same captions and noises: ratios with paired intervals, and seconds a clip.

Answers question R1.3 (motion beside quality) and the paper's claim of a 20-fold faster sampler (C24). All rows of a
table share captions and noise, so resampling whole clips for both rows at once removes the luck of the draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mobivid_core.data.captions import ClipLabel
from mobivid_core.errors import ParameterError
from mobivid_core.evaluate.bars import Bar
from mobivid_core.evaluate.metrics import frechet_distance
from mobivid_core.evaluate.minivbench import ClipMeasures, Reference, dimension_table

if TYPE_CHECKING:
    from mobivid_core.evaluate.generation import Evaluation

Interval = tuple[float, float, float]
#: Timed calls of a short sampler for each of a long one: a tenth of a second is easily disturbed.
SHORT_CALLS = 5


def mean_ratio(
    ours: ClipMeasures,
    theirs: ClipMeasures,
    labels: Sequence[ClipLabel],
    reference: Reference,
    name: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Ratio of two models' mean scores, with a 95 % interval from resampling clips in pairs.

    Args:
        ours: Measures of the model in the numerator, in the order of `labels`.
        theirs: Of the model in the denominator, same captions and noises.
        labels: What each caption asked for.
        reference: As in `evaluate`.
        name: A dimension, e.g. "all_together" or "dynamic_degree".
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        (ratio, low, high). A denominator below one clip in n counts as one clip, so that the ratio is finite.

    Raises:
        ParameterError: Different numbers of clips.
    """
    _check(ours, theirs, labels)
    a, b = (dimension_table(m, labels, reference)[name] for m in (ours, theirs))
    floor = 1 / len(a)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(a), size=(resamples, len(a)))
    ratios = a[draws].mean(1) / np.maximum(b[draws].mean(1), floor)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(a.mean() / max(b.mean(), floor)), float(low), float(high)


def frechet_ratio(
    ours: ClipMeasures, theirs: ClipMeasures, reference: Reference, *, resamples: int = 50, seed: int = 0
) -> Interval:
    """Ratio of two models' Frechet distances to reconstructed real clips, clips resampled in pairs.

    Repeated clips raise every resampled distance; the ratios are moved so that their mean (in logarithms) is the value.

    Raises:
        ParameterError: Different numbers of clips, or a reference without reconstructions.
    """
    _check(ours, theirs, ours.classes)
    if reference.reconstruction is None:
        raise ParameterError("this reference has no reconstructed clips; prepare the evaluator with a trained VAE")
    target = reference.reconstruction.numpy()
    a, b = ours.features.numpy(), theirs.features.numpy()

    def log_ratio(rows: np.ndarray) -> float:
        """Logarithm, so that a ratio and its inverse have mirrored intervals."""
        ours, theirs = (max(frechet_distance(features[rows], target), 1e-9) for features in (a, b))
        return float(np.log(ours / theirs))

    value = log_ratio(np.arange(len(a)))
    rng = np.random.default_rng(seed)
    draws = np.array([log_ratio(rng.integers(len(a), size=len(a))) for _ in range(resamples)])
    low, high = np.quantile(draws + value - draws.mean(), [0.025, 0.975])
    return float(np.exp(value)), float(np.exp(low)), float(np.exp(high))


def seconds_table(
    samplers: dict[str, Callable[[], object]], *, repeats: int = 3, clips: int = 1, long: Collection[str] = ()
) -> pd.DataFrame:
    """Seconds a clip of several samplers, measured in turn so that a busy moment hits all of them.

    Args:
        samplers: Each makes `clips` clips when called.
        repeats: Timed calls each, after one that is not timed.
        clips: Clips made by a call.
        long: Names of samplers that take so long that a first call is like any other: all of theirs are timed. For each
            call of theirs the others are called `SHORT_CALLS` times.

    Returns:
        Columns sampler, seconds (median a clip), fastest, slowest.
    """
    for name in samplers.keys() - set(long):
        samplers[name]()
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    calls = {name: SHORT_CALLS if long and name not in long else 1 for name in samplers}
    for _ in range(repeats):
        for name in (name for name, count in calls.items() for _ in range(count)):
            began = time.perf_counter()
            samplers[name]()
            taken[name].append((time.perf_counter() - began) / clips)
    rows = [(name, float(np.median(s)), min(s), max(s)) for name, s in taken.items()]
    return pd.DataFrame(rows, columns=["sampler", "seconds", "fastest", "slowest"])


def speed_ratio(table: pd.DataFrame, slow: str, fast: str) -> Interval:
    """How many times faster `fast` is: ratio of medians, and the range that the extremes of `seconds_table` allow."""
    rows = table.set_index("sampler")
    a, b = rows.loc[slow], rows.loc[fast]
    return a["seconds"] / b["seconds"], a["fastest"] / b["slowest"], a["slowest"] / b["fastest"]


def _check(ours: ClipMeasures, theirs: ClipMeasures, labels: Sequence[object]) -> None:
    """Pairs need the same clips."""
    if not len(ours) == len(theirs) == len(labels):
        raise ParameterError(
            f"paired comparison of {len(ours)} and {len(theirs)} clips with {len(labels)} labels: evaluate both "
            "models on the same captions"
        )


def compare(
    ours: Evaluation, teacher: Evaluation, rivals: Sequence[Evaluation], reference: Reference, *, seed: int = 0
) -> dict[str, Interval]:
    """What `DISTILL_BARS` ask of a student's clips, all on the same captions and noises.

    Args:
        ours: The student.
        teacher: Its guided teacher in full steps.
        rivals: Training-free samplers of as many steps; the one that the student beats least counts.
        reference: As in `evaluate`.
        seed: Seed of the resampling.

    Returns:
        Intervals: "accuracy", "dynamic" and "frechet" over the teacher, "free" over the rivals' Frechet distance.
    """
    pair = (ours.measures, teacher.measures, ours.labels, reference)
    return {
        "accuracy": mean_ratio(*pair, "all_together", seed=seed),
        "dynamic": mean_ratio(*pair, "dynamic_degree", seed=seed),
        "frechet": frechet_ratio(ours.measures, teacher.measures, reference, seed=seed),
        "free": max(frechet_ratio(ours.measures, rival.measures, reference, seed=seed) for rival in rivals),
    }


def _bars(who: str, speed: float) -> dict[str, Bar]:
    """What a four-step student has to reach."""
    return {
        "accuracy": Bar(f"{who}: all attributes right, over the 40-step guided teacher", 0.95),
        "frechet": Bar(f"{who}: Frechet distance over the teacher's", 1.15, at_least=False),
        "dynamic": Bar(f"{who}: dynamic degree over the teacher's", 0.9),
        "diversity": Bar(f"{who}: diversity over the teacher's", 0.9),
        "free": Bar(f"{who}: Frechet distance over the best training-free four steps", 1.0, at_least=False),
        "speed": Bar(f"{who}: times faster than the teacher", speed),
    }


#: What the students have to reach, set beforehand.
DISTILL_BARS: dict[str, dict[str, Bar]] = {
    "student": _bars("pruned student", 35.0),
    "distilled": _bars("distilled teacher", 18.0),
}

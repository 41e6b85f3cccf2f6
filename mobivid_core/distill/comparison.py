"""Comparing generators on the same captions and noises: ratios with paired intervals, and seconds a clip.

Answers question R1.3 (motion beside quality) and the paper's claim of a 20-fold faster sampler (C24). All rows of a
table share captions and noise, so resampling whole clips for both rows at once removes the luck of the draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from mobivid_core.data.captions import ClipLabel
from mobivid_core.errors import ParameterError
from mobivid_core.evaluate.bars import Bar
from mobivid_core.evaluate.metrics import frechet_distance
from mobivid_core.evaluate.minivbench import ClipMeasures, Reference, dimension_table

Interval = tuple[float, float, float]


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


def seconds_table(samplers: dict[str, Callable[[], object]], *, repeats: int = 3, clips: int = 1) -> pd.DataFrame:
    """Seconds a clip of several samplers, measured in turn so that a busy moment hits all of them.

    Args:
        samplers: Each makes `clips` clips when called.
        repeats: Timed calls each, after one that is not timed.
        clips: Clips made by a call.

    Returns:
        Columns sampler, seconds (median a clip), fastest, slowest.
    """
    for sample in samplers.values():
        sample()
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(repeats):
        for name, sample in samplers.items():
            began = time.perf_counter()
            sample()
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


#: What the four-step student has to reach, set beforehand.
DISTILL_BARS: dict[str, Bar] = {
    "accuracy": Bar("all attributes right, over the 40-step guided teacher", 0.95),
    "frechet": Bar("Frechet distance over the teacher's", 1.15, at_least=False),
    "dynamic": Bar("dynamic degree over the teacher's", 0.9),
    "diversity": Bar("diversity over the teacher's", 0.9),
    "unipc4": Bar("Frechet distance over the best training-free four steps", 1.0, at_least=False),
    "speed": Bar("times faster, teacher's size", 18.0),
    "speed_pruned": Bar("times faster, pruned", 35.0),
}

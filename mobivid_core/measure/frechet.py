"""Frechet distances with intervals, also where there are more features than clips.

The distance itself is `metrics.frechet_distance`. Here it is written in products of clips with clips, so that
resampling clips a hundred times costs seconds at any number of features: with A and B the centred features,
tr((cov_a cov_b)^(1/2)) is the sum of the singular values of A B^T / ((n - 1)(m - 1))^(1/2).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.measure.intervals import Interval, from_draws


class FrechetTarget:
    """Distances of resampled rows of one set from a fixed other set.

    Args:
        features: (N, F) the set whose rows are resampled.
        target: (M, F) the fixed set.

    Raises:
        ParameterError: Not two finite matrices of one width with two rows or more.
    """

    def __init__(self, features: np.ndarray | Tensor, target: np.ndarray | Tensor) -> None:
        self._rows, other = (np.asarray(x, dtype=np.float64) for x in (features, target))
        shapes = self._rows.shape, other.shape
        if any(len(s) != 2 or s[0] < 2 for s in shapes) or shapes[0][1] != shapes[1][1]:
            raise ParameterError(f"a Frechet distance takes (N, F) and (M, F) with N, M >= 2, got {shapes}")
        if not (np.isfinite(self._rows).all() and np.isfinite(other).all()):
            raise ParameterError("a Frechet distance got non-finite features: were the clips finite?")
        centre = other.mean(0)
        self._rows = self._rows - centre
        centred = other - centre
        self._spread = np.square(centred).sum() / (len(other) - 1)
        # beyond as many clips as features, only the target's axes matter: its triangular factor does for the target
        axes = np.linalg.qr(centred, mode="r") if len(other) > other.shape[1] else centred
        self._products = self._rows @ axes.T / np.sqrt(len(other) - 1)
        self._squares = np.square(self._rows).sum(1)

    def distance(self, rows: np.ndarray | None = None) -> float:
        """Squared Frechet distance of some rows (indices, repeats allowed; None for all) from the target."""
        rows = np.arange(len(self._rows)) if rows is None else rows
        n = len(rows)
        mean = self._rows[rows].mean(0)
        shift = np.square(mean).sum()
        spread = (self._squares[rows].sum() - n * shift) / (n - 1)
        products = self._products[rows] - self._products[rows].mean(0)
        overlap = np.linalg.svd(products, compute_uv=False).sum() / np.sqrt(n - 1)
        return max(0.0, float(shift + spread + self._spread - 2 * overlap))


def distance_interval(
    features: np.ndarray | Tensor, target: np.ndarray | Tensor, *, resamples: int = 50, seed: int = 0
) -> Interval:
    """A Frechet distance and its 95 % bootstrap interval over clips.

    Repeated clips raise every resampled distance: the resamples are moved so that their mean is the value.

    Args:
        features: (N, F) of the clips that are scored.
        target: (M, F) of the clips they are compared with.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        (distance, low, high), in squared units of the features, low >= 0.
    """
    target = FrechetTarget(features, target)
    value, rng = target.distance(), np.random.default_rng(seed)
    draws = np.array([target.distance(rng.integers(len(features), size=len(features))) for _ in range(resamples)])
    found = from_draws(value, draws, n=len(features), centred=True)
    return Interval(value, max(0.0, found.low), found.high, kind=found.kind, over=found.over, n=found.n)


def ratio_interval(
    ours: np.ndarray | Tensor,
    theirs: np.ndarray | Tensor,
    target: np.ndarray | Tensor,
    *,
    resamples: int = 50,
    seed: int = 0,
) -> Interval:
    """Ratio of two sets' Frechet distances from a third, clips of both resampled in pairs.

    Args:
        ours: (N, F) in the numerator, clip i for the same caption as clip i of `theirs`.
        theirs: (N, F) in the denominator.
        target: (M, F).
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        (ratio, low, high); the resampled logarithms are moved so that their mean is the value's.

    Raises:
        ParameterError: Different numbers of clips.
    """
    distances = _paired((ours, theirs), target, resamples, seed)
    return _log_interval(np.log(np.maximum(distances, 1e-9)) @ [1, -1], len(ours))


def excess_ratio_interval(
    ours: np.ndarray | Tensor,
    theirs: np.ndarray | Tensor,
    floor: np.ndarray | Tensor,
    target: np.ndarray | Tensor,
    *,
    resamples: int = 50,
    seed: int = 0,
) -> Interval:
    """Ratio of what two sets' Frechet distances have above a third's: what models add to the codec's own distance.

    Resampling raises all three distances by about as much, which the differences take out. A difference below a
    hundredth of the floor's distance counts as that much: the ratio of two models at the floor is 1.

    Args:
        ours: (N, F) in the numerator, clip i for the same caption in all three sets.
        theirs: (N, F) in the denominator.
        floor: (N, F) reconstructions of the real clips of those captions.
        target: (M, F) other real clips.
        resamples: Bootstrap resamples of captions, all three clips of one together.
        seed: Seed of the resampling.

    Returns:
        (ratio, low, high); the resampled logarithms are moved so that their mean is the value's.

    Raises:
        ParameterError: Different numbers of clips.
    """
    distances = _paired((ours, theirs, floor), target, resamples, seed)
    least = 0.01 * np.maximum(distances[:, 2:], 1e-9)
    return _log_interval(np.log(np.maximum(distances[:, :2] - distances[:, 2:], least)) @ [1, -1], len(ours))


def _paired(
    sets: tuple[np.ndarray | Tensor, ...], target: np.ndarray | Tensor, resamples: int, seed: int
) -> np.ndarray:
    """(1 + resamples, sets) distances from `target`: of all rows first, then of the same resampled rows of each set."""
    n = len(sets[0])
    if any(len(x) != n for x in sets):
        raise ParameterError(f"paired sets need as many clips each, got {' and '.join(str(len(x)) for x in sets)}")
    sides, rng = [FrechetTarget(x, target) for x in sets], np.random.default_rng(seed)
    rows = [np.arange(n), *(rng.integers(n, size=n) for _ in range(resamples))]
    return np.array([[side.distance(r) for side in sides] for r in rows])


def _log_interval(logs: np.ndarray, n: int) -> Interval:
    """From the logarithm of a ratio of n pairs, and those of its resamples after it."""
    return from_draws(float(logs[0]), logs[1:], n=n, over="pairs of clips", centred=True, logs=True)

"""Squared Frechet distances of the Gaussians fitted to two sets of features, with intervals.

|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of means and covariances. It stands in for FVD, which needs a downloaded
network, and is never called FVD. It falls with the number of clips: compare only sets of one size, and print the
distance of two real sets beside it.

It is written in products of clips with clips, so that resampling clips a hundred times costs seconds at any number of
features: with X and Y the centred features, tr((A B)^(1/2)) is the sum of the singular values of
X Y^T / ((n - 1)(m - 1))^(1/2).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.measure.intervals import Interval, from_draws


class FrechetTarget:
    """Distances of resampled rows of `features` (N, F) from a fixed set `target` (M, F).

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


def frechet_distance(a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> float:
    """Distance of two sets (N, F) and (M, F), >= 0, in squared units of the features."""
    return FrechetTarget(a, b).distance()


def distance_interval(
    features: np.ndarray | Tensor, target: np.ndarray | Tensor, *, resamples: int = 50, seed: int = 0
) -> Interval:
    """Distance of clips (N, F) from others (M, F) with its 95 % bootstrap interval over the clips, low >= 0.

    Repeated clips raise every resampled distance: the resamples are moved so that their mean is the value.
    """
    value, *draws = paired_distances((features,), target, resamples, seed)[:, 0]
    found = from_draws(value, draws, n=len(features), centred=True)
    return Interval(value, max(0.0, found.low), found.high, kind=found.kind, over=found.over, n=found.n)


def ratio_interval(
    ours: np.ndarray | Tensor, theirs: np.ndarray | Tensor, target: np.ndarray | Tensor,
    *, resamples: int = 50, seed: int = 0,
) -> Interval:  # fmt: skip
    """Ratio of the distances of two sets (N, F) from `target` (M, F), clips of both resampled in pairs.

    Clip i of both is for the same caption. The resampled logarithms are moved so that their mean is the value's.
    """
    distances = paired_distances((ours, theirs), target, resamples, seed)
    return _log_interval(np.maximum(distances, 1e-9), len(ours))


def excess_ratio_interval(
    ours: np.ndarray | Tensor, theirs: np.ndarray | Tensor, floor: np.ndarray | Tensor, target: np.ndarray | Tensor,
    *, resamples: int = 50, seed: int = 0,
) -> Interval:  # fmt: skip
    """Ratio of what two sets' distances have above a third's: what models add to the codec's own distance.

    Resampling raises all three distances by about as much, which the differences take out. A difference below a
    hundredth of the floor's distance counts as that much: the ratio of two models at the floor is 1.

    `floor` (N, F) are reconstructions of the same captions' real clips; the rest as in `ratio_interval`.
    """
    distances = paired_distances((ours, theirs, floor), target, resamples, seed)
    least = 0.01 * np.maximum(distances[:, 2:], 1e-9)
    return _log_interval(np.maximum(distances[:, :2] - distances[:, 2:], least), len(ours))


def paired_distances(
    sets: tuple[np.ndarray | Tensor, ...], target: np.ndarray | Tensor, resamples: int, seed: int
) -> np.ndarray:
    """(1 + resamples, sets) distances from `target`: of all rows first, then of the same resampled rows of each set."""
    n = len(sets[0])
    if any(len(x) != n for x in sets):
        counts = " and ".join(str(len(x)) for x in sets)
        raise ParameterError(f"paired sets need as many clips each, of the same captions; got {counts}")
    sides, rng = [FrechetTarget(x, target) for x in sets], np.random.default_rng(seed)
    rows = [np.arange(n), *(rng.integers(n, size=n) for _ in range(resamples))]
    return np.array([[side.distance(r) for side in sides] for r in rows])


def _log_interval(parts: np.ndarray, n: int) -> Interval:
    """From (1 + resamples, 2) numerators and denominators of n pairs: of all pairs first, then of the resamples."""
    logs = np.log(parts) @ [1, -1]
    return from_draws(float(logs[0]), logs[1:], n=n, over="pairs of clips", centred=True, logs=True)

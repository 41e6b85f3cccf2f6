"""Every interval of the project, each with what varies in it and how many of those there were.

| function | what varies | method |
|---|---|---|
| `mean` | clips | percentile bootstrap, widened for small samples (Hesterberg 2015) |
| `share` | clips that are right or wrong | Wilson's score interval |
| `difference`, `ratio` | clips, in pairs | as `mean`; of right and wrong, closed forms that also hold at 0 and 1 |
| `over_seeds` | seeds | Student's t |
| `crossed` | seeds and clips, all clips in each seed | two-way random effects, Satterthwaite's degrees of freedom |
| `speed` | runs, or the repeats within one | t over runs; the sign test's interval of the median within one |
| `rank_correlation` | units | Fisher's z with the standard error of Bonett and Wright (2000) |

Distances resample clips too: `measure.frechet`. `studies.coverage` draws data of a known truth and counts how often
each kind holds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from scipy import stats

from mobivid_core.errors import ParameterError

LEVEL = 0.95
#: Bootstrap resamples.
RESAMPLES = 1000


class Interval(tuple):
    """(value, low, high), with what it is an interval over.

    Attributes:
        kind: Method and level in words, e.g. "95 % bootstrap".
        over: What varies, in the plural, e.g. "clips".
        n: How many of them; seeds where seeds and clips both vary.
    """

    value, low, high = (property(itemgetter(place)) for place in range(3))

    def __new__(cls, value: float, low: float, high: float, *, kind: str, over: str, n: int) -> Interval:
        self = super().__new__(cls, (float(value), float(low), float(high)))
        self.kind, self.over, self.n = kind, over, int(n)
        return self

    def __getnewargs_ex__(self) -> tuple[tuple, dict]:
        return tuple(self), {"kind": self.kind, "over": self.over, "n": self.n}

    def __str__(self) -> str:
        return f"{self:.3g} ({self.kind}, {self.n} {self.over})"

    def __format__(self, digits: str) -> str:
        return f"{self[0]:{digits}} [{self[1]:{digits}}, {self[2]:{digits}}]" if digits else str(self)


def mean(values: np.ndarray, *, over: str = "clips", resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean of (N,) values; of values that are all 0 or 1, a `share`."""
    values = _column(values)
    if _binary(values):
        return share(int(values.sum()), len(values), over=over)
    draws = values[picks(len(values), resamples, seed)].mean(1)
    return from_draws(values.mean(), draws, n=len(values), over=over)


def picks(n: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, n) row numbers, drawn with replacement."""
    return np.random.default_rng(seed).integers(n, size=(resamples, n))


def from_draws(
    value: float, draws: np.ndarray, *, n: int, over: str = "clips", centred: bool = False, logs: bool = False
) -> Interval:
    """The interval that bootstrap draws (R,) of a statistic of n samples give.

    Percentiles of a bootstrap are too narrow for few samples, by the factor between a normal and a t interval: the
    levels are moved outwards as far as a mean needs it (Hesterberg 2015, "expanded percentile interval").

    With `centred` the draws' spread alone counts, around the value: repeated rows raise a distance in every resample,
    and a distance is too slow to resample often enough for percentiles. With `logs` value and draws are logarithms.
    """
    draws = np.asarray(draws, dtype=np.float64)
    if centred:
        half = stats.t.ppf((1 + LEVEL) / 2, len(draws) - 1) * draws.std(ddof=1) * math.sqrt(n / max(n - 1, 1))
        low, high = value - half, value + half
    else:
        low, high = np.quantile(draws, _levels(n))
    ends = np.exp([value, low, high]) if logs else (value, low, high)
    return Interval(*ends, kind="95 % bootstrap", over=over, n=n)


def _levels(n: int) -> tuple[float, float]:
    if n < 2:
        return 0.0, 1.0
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return float(tail), float(1 - tail)


def cells(found: Interval) -> dict[str, object]:
    """Cells of a table's row: value, low, high, interval (its kind and what varies) and n."""
    ends = dict(zip(("value", "low", "high"), found, strict=True))
    return {**ends, "interval": f"{found.kind}, {found.over}", "n": found.n}


def named(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    """Cells of a table's row with several measures: `name`, `name`_low and `name`_high."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def share(right: int, n: int, *, over: str = "clips") -> Interval:
    """Share of n that are right: Wilson's interval, which has a width at 0 and at 1 too."""
    if n < 1 or not 0 <= right <= n:
        raise ParameterError(f"a share needs 0 <= right <= n and n >= 1, got {right} of {n}")
    ends = stats.binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return Interval(right / n, ends.low, ends.high, kind="95 % Wilson", over=over, n=n)


def difference(ours: np.ndarray, theirs: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean of `ours` minus mean of `theirs`, (N,) clips each, in pairs.

    Of right and wrong: Agresti and Min's interval (2005), half a pair added to each of the four outcomes.
    """
    a, b = _pair(ours, theirs)
    if not (_binary(a) and _binary(b)):
        return mean(a - b, over="pairs of clips", resamples=resamples, seed=seed)
    only_a, only_b, n = (a > b).sum() + 0.5, (a < b).sum() + 0.5, len(a) + 2
    middle = (only_a - only_b) / n
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt(((only_a + only_b) / n - middle**2) / n)
    ends = max(-1.0, middle - half), min(1.0, middle + half)
    return Interval((a - b).mean(), *ends, kind="95 % Agresti-Min", over="pairs of clips", n=len(a))


def unpaired_difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Share of right clips (N,) minus that of other clips (M,): Newcombe's interval from the two Wilson ones (1998)."""
    (p, low_p, high_p), (q, low_q, high_q) = (share(int(_column(x).sum()), len(x)) for x in (ours, theirs))
    down, up = math.hypot(p - low_p, high_q - q), math.hypot(high_p - p, q - low_q)
    n = min(len(ours), len(theirs))
    return Interval(p - q, p - q - down, p - q + up, kind="95 % Newcombe", over="clips in the smaller set", n=n)


def ratio(
    ours: np.ndarray, theirs: np.ndarray, *, over: str = "clips", resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of `ours` over mean of `theirs`, (N,) each, in pairs.

    Of right and wrong: the logarithm's normal interval with half a pair added to each of the four outcomes; nothing
    right counts as one in N.
    """
    a, b = _pair(ours, theirs)
    over = f"pairs of {over}"
    if not (_binary(a) and _binary(b)):
        chosen = picks(len(a), resamples, seed)
        draws = a[chosen].mean(1) / np.maximum(b[chosen].mean(1), 1e-12)
        return from_draws(a.mean() / max(b.mean(), 1e-12), draws, n=len(a), over=over)
    only_a, only_b, both = (a > b).sum() + 0.5, (a < b).sum() + 0.5, (a * b).sum() + 0.5
    right_a, right_b = both + only_a, both + only_b
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt((only_a + only_b) / (right_a * right_b))
    middle = math.log(right_a / right_b)
    ends = math.exp(middle - half), math.exp(middle + half)
    value = a.mean() / max(b.mean(), 1 / len(a))
    return Interval(value, *ends, kind="95 % log-normal", over=over, n=len(a))


def over_seeds(values: Sequence[float], *, logs: bool = False, over: str = "seeds") -> Interval:
    """Mean over two seeds or more; with `logs`, the geometric mean."""
    values = _column(values)
    if len(values) < 2:
        raise ParameterError(f"an interval over {over} needs two or more, got {len(values)}")
    values = np.log(values) if logs else values
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    ends = values.mean() + np.array([0.0, -half, half])
    return Interval(*(np.exp(ends) if logs else ends), kind="95 % t", over=over, n=len(values))


def crossed(values: np.ndarray, *, logs: bool = False) -> Interval:
    """Mean of (S, N) values, S >= 2 seeds each on the same N >= 2 clips, both samples of what might have been.

    The variance of the mean is (seeds + clips - rest) / (S N) in mean squares of the two-way table; its degrees of
    freedom are Satterthwaite's. A clip effect that is estimated below zero counts as zero. `logs`: the geometric mean.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ParameterError(f"crossed intervals take (seeds, clips) with two or more of each, got {table.shape}")
    table = np.log(table) if logs else table
    seeds, clips = table.shape
    middle = table.mean()
    rows, columns = table.mean(1), table.mean(0)
    square_seeds = clips * np.square(rows - middle).sum() / (seeds - 1)
    square_clips = seeds * np.square(columns - middle).sum() / (clips - 1)
    rest = np.square(table - rows[:, None] - columns + middle).sum() / ((seeds - 1) * (clips - 1))
    squares = np.array([square_seeds, square_clips, -rest])
    freedom = np.array([seeds - 1, clips - 1, (seeds - 1) * (clips - 1)])
    if squares.sum() < square_seeds:  # no clip effect beyond the rest
        squares, freedom = squares[:1], freedom[:1]
    total = max(squares.sum(), 1e-300)
    degrees = max(1.0, total**2 / max((squares**2 / freedom).sum(), 1e-300))
    half = stats.t.ppf((1 + LEVEL) / 2, degrees) * math.sqrt(total / table.size)
    ends = middle + np.array([0.0, -half, half])
    return Interval(
        *(np.exp(ends) if logs else ends), kind=f"95 % t, {clips} clips", over="seeds, each on the same clips", n=seeds
    )


def speed(slow: Sequence[Sequence[float]], fast: Sequence[Sequence[float]]) -> Interval:
    """How many times faster `fast` is, from a list of seconds for each run; repeat i of both was measured in turn.

    With two runs or more, t over the logarithms of the runs' median ratios; with one, the sign test's interval of the
    median over its repeats, which says nothing of another run or machine.
    """
    if not len(slow) == len(fast) > 0 or any(not len(a) == len(b) > 0 for a, b in zip(slow, fast, strict=True)):
        raise ParameterError("speeds need the same repeats of both in every run")
    logs = [np.log(np.asarray(a, dtype=float) / np.asarray(b, dtype=float)) for a, b in zip(slow, fast, strict=True)]
    if len(logs) > 1:
        return over_seeds(np.exp([np.median(x) for x in logs]), logs=True, over="runs")
    ordered, n = np.sort(logs[0]), len(logs[0])
    # the largest k for which (k-th smallest, k-th largest) still holds the median in 95 of 100 cases
    inside = [k for k in range(n // 2) if 2 * stats.binom.cdf(k, n, 0.5) <= 1 - LEVEL]
    k = max(inside, default=0)
    held = 1 - 2 * stats.binom.cdf(k, n, 0.5) if n > 1 else 0.0
    ends = np.exp([np.median(ordered), ordered[k], ordered[n - 1 - k]])
    return Interval(*ends, kind=f"{100 * held:.0f} % of the median", over="repeats in one run", n=n)


def rank_correlation(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Spearman correlation of at least 3 pairs; nan where a side is constant, without ends below four."""
    a, b = _pair(ours, theirs)
    n = len(a)
    if n < 3:
        raise ParameterError(f"a rank correlation needs at least 3 pairs, got {n}")
    constant = a.min() == a.max() or b.min() == b.max()
    rho = math.nan if constant else float(stats.spearmanr(a, b).statistic)
    ends = (math.nan, math.nan)
    if n > 3 and not constant:
        middle = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12))
        half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt((1 + rho**2 / 2) / (n - 3))
        ends = math.tanh(middle - half), math.tanh(middle + half)
    return Interval(rho, *ends, kind="95 % Fisher z", over="units", n=n)


def _column(values: object) -> np.ndarray:
    column = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(column):
        raise ParameterError("an interval needs at least one value, got none")
    return column


def _pair(ours: object, theirs: object) -> tuple[np.ndarray, np.ndarray]:
    a, b = _column(ours), _column(theirs)
    if len(a) != len(b):
        raise ParameterError(f"pairs need as many on both sides, got {len(a)} and {len(b)}")
    return a, b


def _binary(values: np.ndarray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())

"""Coverage of the intervals: `mobivid study coverage` draws data of a known truth and counts hits.

An interval at 95 % should hold the truth in 950 of 1,000 draws, within the error of such a count. The sizes are those
that the notebooks have: three seeds, tens to hundreds of clips, a few repeats. Scores are skewed, shares near 1.
Notebook 07 shows the record, `data/benchmarks/interval_coverage.*`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from mobivid_core.measure import intervals
from mobivid_core.measure.frechet import distance_interval, excess_ratio_interval, frechet_distance, ratio_interval
from mobivid_core.measure.intervals import Interval
from mobivid_core.phone.efficiency import calibration_rows, fit_efficiency
from mobivid_core.studies.records import read_study, run_study

RECORDS = {"coverage": "interval_coverage"}

#: One experiment: an interval, and the truth that it should hold.
Experiment = Callable[[np.random.Generator], tuple[tuple[float, float, float], float]]
#: Resamples of means, and of distances: fewer than in the notebooks' tables, which have 1,000 and 50.
_RESAMPLES, _FEW = 200, 50
#: Of the logs of efficiency, as the anchors have them.
_SPREADS = {"workload": 0.2, "chip": 0.2}
#: Features of the distances' sets, and how far floor, near and far set lie from the target.
_FEATURES = 4
_SHIFTS = (0.4, 0.8, 1.2)


def _scores(rng: np.random.Generator, n: int) -> np.ndarray:
    """Clip scores in [0, 1], most of them high: mean 5/7."""
    return rng.beta(5, 2, size=n)


def _mean(rng: np.random.Generator) -> tuple[Interval, float]:
    return intervals.mean(_scores(rng, 48), resamples=_RESAMPLES, seed=int(rng.integers(2**31))), 5 / 7


def _share(rng: np.random.Generator) -> tuple[Interval, float]:
    truth = rng.uniform(0.5, 0.99)
    return intervals.mean((rng.random(256) < truth).astype(float)), truth


def _pairs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Right and wrong of two models on the same 128 captions: some captions are harder for both."""
    a, b = rng.uniform(0.7, 0.98, size=2)
    easy = rng.random(128) < 0.5
    outcomes = [(rng.random(128) < np.where(easy, (1 + p) / 2, (3 * p - 1) / 2)).astype(float) for p in (a, b)]
    return outcomes[0], outcomes[1], a, b


def _difference(rng: np.random.Generator) -> tuple[Interval, float]:
    ours, theirs, a, b = _pairs(rng)
    return intervals.difference(ours, theirs), a - b


def _unpaired(rng: np.random.Generator) -> tuple[Interval, float]:
    a, b = rng.uniform(0.6, 0.98, size=2)
    return intervals.unpaired_difference(rng.random(200) < a, rng.random(56) < b), a - b


def _ratio(rng: np.random.Generator) -> tuple[Interval, float]:
    ours, theirs, a, b = _pairs(rng)
    return intervals.ratio(ours, theirs), a / b


def _ratio_of_means(rng: np.random.Generator) -> tuple[Interval, float]:
    base = _scores(rng, 64)
    ours = base * rng.uniform(0.6, 1.0, size=64)
    return intervals.ratio(ours, base, resamples=_RESAMPLES, seed=int(rng.integers(2**31))), 0.8


def _seeds(rng: np.random.Generator) -> tuple[Interval, float]:
    return intervals.over_seeds(np.exp(rng.normal(-0.2, 0.1, size=3)), logs=True), float(np.exp(-0.2))


def _crossed(rng: np.random.Generator) -> tuple[Interval, float]:
    seeds, clips = rng.normal(0, 0.05, size=(3, 1)), rng.normal(0, 0.4, size=(1, 128))
    return intervals.crossed(0.7 + seeds + clips + rng.normal(0, 0.3, size=(3, 128))), 0.7


def _speed(rng: np.random.Generator) -> tuple[Interval, float]:
    runs = rng.normal(0, 0.1, size=(4, 1))
    slow, fast = (np.exp(base + rng.gamma(1, 0.1, size=(4, 5))) for base in (np.log(30.0), 0.0))
    return intervals.speed(slow * np.exp(runs), fast), 30.0


def _one_run(rng: np.random.Generator) -> tuple[Interval, float]:
    slow, fast = (np.exp(base + rng.gamma(1, 0.1, size=(1, 12))) for base in (np.log(30.0), 0.0))
    return intervals.speed(slow, fast), 30.0


def _ranks(rng: np.random.Generator) -> tuple[Interval, float]:
    pearson = rng.uniform(-0.8, 0.8)
    x, y = rng.multivariate_normal([0, 0], [[1, pearson], [pearson, 1]], size=56).T
    return intervals.rank_correlation(x, y), 6 / np.pi * np.arcsin(pearson / 2)


def _prediction(rng: np.random.Generator) -> tuple[tuple[float, float, float], float]:
    """The anchors' own layout of chips and workloads; the truth is another workload on another chip."""
    rows = calibration_rows()[["chip", "workload"]]
    effects = sum(rows[by].map({v: rng.normal(0, sd) for v in rows[by].unique()}) for by, sd in _SPREADS.items())
    fitted = fit_efficiency(rows.assign(efficiency=np.exp(effects - 1.5)))
    another = -1.5 + sum(rng.normal(0, sd) for sd in _SPREADS.values())
    return (fitted.typical, *fitted.interval(0.95)), float(np.exp(another))


class _Distances:
    """Frechet distances of 256 clips from a fixed target. The truth is their mean over many sets of as many clips."""

    def __init__(self) -> None:
        self.target, rng = np.random.default_rng(0).normal(size=(1024, _FEATURES)), np.random.default_rng(1)
        sets = [rng.normal(size=(256, _FEATURES)) for _ in range(400)]
        self.floor, self.near, self.far = np.mean(
            [[frechet_distance(x + shift, self.target) for shift in _SHIFTS] for x in sets], 0
        )

    def one(self, rng: np.random.Generator) -> tuple[Interval, float]:
        how = {"resamples": _FEW, "seed": int(rng.integers(2**31))}
        return distance_interval(rng.normal(size=(256, _FEATURES)) + _SHIFTS[1], self.target, **how), self.near

    def ratio(self, rng: np.random.Generator) -> tuple[Interval, float]:
        (_, near, far), how = self._shifted(rng)
        return ratio_interval(near, far, self.target, **how), self.near / self.far

    def excess(self, rng: np.random.Generator) -> tuple[Interval, float]:
        (floor, near, far), how = self._shifted(rng)
        truth = (self.near - self.floor) / (self.far - self.floor)
        return excess_ratio_interval(near, far, floor, self.target, **how), truth

    def _shifted(self, rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, int]]:
        base = rng.normal(size=(256, _FEATURES))
        return [base + shift for shift in _SHIFTS], {"resamples": _FEW, "seed": int(rng.integers(2**31))}


def experiments() -> dict[str, tuple[Experiment, str]]:
    """{kind: (experiment, its size in words)}."""
    far = _Distances()
    return {
        "mean of scores": (_mean, "48 clips"),
        "share right": (_share, "256 clips"),
        "difference of shares, paired": (_difference, "128 clips"),
        "difference of shares, unpaired": (_unpaired, "200 and 56 clips"),
        "ratio of shares, paired": (_ratio, "128 clips"),
        "ratio of means, paired": (_ratio_of_means, "64 clips"),
        "mean over seeds": (_seeds, "3 seeds"),
        "mean over seeds and clips": (_crossed, "3 seeds, 128 clips"),
        "speed over runs": (_speed, "4 runs of 5"),
        "speed in one run": (_one_run, "12 repeats"),
        "rank correlation": (_ranks, "56 units"),
        "prediction of another workload and chip": (_prediction, "3 workloads, 7 chips"),
        "Frechet distance": (far.one, "256 clips"),
        "ratio of distances, paired": (far.ratio, "256 clips"),
        "ratio above the floor, paired": (far.excess, "256 clips"),
    }


def simulate(draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How often each kind of interval holds the truth, in so many experiments of each: a row a kind.

    held is the share of draws whose interval held the truth, low and high its Wilson interval.
    """
    rows = []
    for number, (name, (experiment, size)) in enumerate(experiments().items()):
        rng, held = np.random.default_rng([seed, number]), 0
        for _ in range(draws):
            (_, low, high), truth = experiment(rng)
            held += low <= truth <= high
        rows.append((name, size, draws, *intervals.share(held, draws)))
    return pd.DataFrame(rows, columns=["interval", "size", "draws", "held", "low", "high"])


def worst(table: pd.DataFrame) -> Interval:
    """Share of draws in which the worst kind of a `simulate` table held the truth, with its own interval."""
    row = table.loc[table["held"].idxmin()]
    return intervals.share(round(row["held"] * row["draws"]), int(row["draws"]), over="draws")


def coverage_told(table: pd.DataFrame, facts: dict) -> str:
    """One sentence: which kinds hold the truth as often as they say."""
    least = table.loc[table["held"].idxmin()]
    short = table[table["high"] < intervals.LEVEL]["interval"]
    listed = f" Below it beyond chance: {', '.join(short)}." if len(short) else ""
    return (
        f"Of {len(table)} kinds of intervals at 95 % the worst, '{least['interval']}' ({least['size']}), held a known "
        f"truth in {least['held']:.1%} of {least['draws']} draws, the best in {table['held'].max():.1%}.{listed} "
        f"Recorded on {facts['date']}."
    )


def load_coverage() -> tuple[pd.DataFrame, dict]:
    """The record: its table and its facts."""
    return read_study(RECORDS["coverage"], "coverage")


def _work(options: Namespace) -> tuple[pd.DataFrame, dict]:
    return simulate(options.draws, options.seed), {}


main = partial(run_study, RECORDS, __doc__, _work, {"draws": 1000, "seed": 0}, of_teacher=False)

"""The roofline's one fitted parameter, its efficiency, from published speeds, with its error.

Paper: none; the anchors are speeds that others published for these chips (data/paper/calibration.csv): two image U-Nets
on six chips, one transformer on a seventh. The efficiency is the share of a Neural Engine's nominal float16 peak that
they reach. A workload is one sample and so is a chip, however many rows they have: the prediction for a video
transformer on one more chip has both spreads. The chips' spread includes the error of their nominal peaks, which are
mostly `assumed`; where two figures of a peak exist, each is a case (`fps_cases`). All predictions are `derived`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mobivid_core.errors import ParameterError
from mobivid_core.measure.intervals import Interval
from mobivid_core.phone.devices import NEURAL_ENGINE, Device, load_devices
from mobivid_core.phone.roofline import Stage, clip_seconds
from mobivid_core.published import calibration

#: Probability inside the intervals of predictions.
LEVEL = 0.8
_DRAWS = 4000  # of the Monte Carlo intervals


@dataclass(frozen=True)
class Efficiency:
    """Share of the nominal peak that a workload reaches on a chip, neither of them among the anchors: log-normal."""

    log_mean: float  # mean of log(efficiency), each workload counted once
    log_sd: float  # standard deviation of the prediction: workloads, chips, and the mean's own error
    freedom: float  # degrees of freedom of `log_sd`
    workloads: int  # among the anchors
    chips: int  # among the anchors

    @property
    def typical(self) -> float:
        """Geometric mean."""
        return math.exp(self.log_mean)

    def draws(self, count: int, seed: int = 0) -> np.ndarray:
        """Efficiencies that one more workload on one more chip might have (Student's t, at most 1)."""
        t = np.random.default_rng(seed).standard_t(self.freedom, size=count)
        return np.minimum(1.0, np.exp(self.log_mean + t * self.log_sd))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Prediction interval for one more workload on one more chip."""
        from scipy.stats import t

        half = t.ppf(0.5 + level / 2, self.freedom) * self.log_sd
        return math.exp(self.log_mean - half), min(1.0, math.exp(self.log_mean + half))


def calibration_rows(peaks: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Published speeds with the efficiency each implies; chips whose peak is unknown are left out.

    `peaks` (chip -> float16 TFLOP/s) are taken instead of the table's.
    """
    known = {d.chip: d.tflops for d in load_devices() if d.engine == NEURAL_ENGINE and d.tflops} | (peaks or {})
    rows = calibration().query("chip in @known").reset_index(drop=True)
    rows["fp16_tflops"] = rows["chip"].map(known)
    rows["efficiency"] = rows["tflop_per_iteration"] * rows["iterations_per_s"] / rows["fp16_tflops"]
    return rows


def fit_efficiency(rows: pd.DataFrame | None = None) -> Efficiency:
    """Log-normal efficiency with a spread over workloads and one over chips.

    The prediction's variance is s_w^2 (1 + 1/W) + s_c^2: s_w^2 of the W workloads' means, s_c^2 of the chips' mean
    deviations from their workloads. Its degrees of freedom are Satterthwaite's. `rows` have `chip`, `workload` and
    `efficiency`; None takes all anchors. A ParameterError if a spread is missing.
    """
    rows = calibration_rows() if rows is None else rows
    logs = np.log(rows["efficiency"].astype(float))
    means = logs.groupby(rows["workload"]).mean()
    shared = logs.groupby(rows["workload"]).transform("size") > 1
    chips = (logs - rows["workload"].map(means))[shared].groupby(rows["chip"][shared]).mean()
    if len(means) < 2 or len(chips) < 2:
        raise ParameterError(f"{len(means)} workload(s), {len(chips)} chip(s) to compare: a spread needs two of each")
    n = len(means)
    between = float(means.var(ddof=1)) * (1 + 1 / n)
    within = float((chips**2).sum()) / (len(chips) - 1)
    variance = between + within
    freedom = variance**2 / (between**2 / (n - 1) + within**2 / (len(chips) - 1)) if variance else math.inf
    return Efficiency(float(means.mean()), math.sqrt(variance), freedom, n, rows["chip"].nunique())


def leave_one_out(by: str) -> pd.DataFrame:
    """Predict the published speeds of each "chip" (or "workload") from the others'.

    Adds `predicted_per_s`, relative `error`, the efficiency's interval `low` to `high`, and whether it `covers` to the
    calibration rows.
    """
    rows, parts = calibration_rows(), []
    for value in rows[by].unique():
        held, fit = rows[rows[by] == value].copy(), fit_efficiency(rows[rows[by] != value])
        held["low"], held["high"] = fit.interval()
        held["predicted_per_s"] = fit.typical * held["fp16_tflops"] / held["tflop_per_iteration"]
        held["error"] = (held["predicted_per_s"] / held["iterations_per_s"] - 1).abs()
        held["covers"] = held["efficiency"].between(held["low"], held["high"])
        parts.append(held)
    return pd.concat(parts, ignore_index=True)


def left_out_errors() -> pd.DataFrame:
    """What leaving out each chip, and each workload, says of the model's error; every chip and workload counts once.

    Columns: `left out`, `n`, `median error`, `largest error`, `inside the 80 % interval` (share of rows); a row each
    way, and one for each held-out workload alone.
    """
    lines = []
    for by in ("chip", "workload"):
        found = leave_one_out(by)
        errors = found.groupby(by, sort=False)["error"].median()
        lines.append((f"each {by} in turn", len(errors), errors.median(), errors.max(), found["covers"].mean()))
    for name, part in found.groupby("workload", sort=False):
        lines.append((name, len(part), part["error"].median(), part["error"].max(), part["covers"].mean()))
    columns = ["left out", "n", "median error", "largest error", f"inside the {LEVEL:.0%} interval"]
    return pd.DataFrame(lines, columns=columns)


def fps_interval(
    stages: Sequence[Stage], device: Device, efficiency: Efficiency, frames: int, *,
    decoder_tflop: tuple[float, float] = (0, 0), seed: int = 0,
) -> Interval:  # fmt: skip
    """Predicted frames/s of a clip of so many frames with its interval: (median, low, high), by Monte Carlo draws.

    `stages` leave out a decoder of unknown cost, which is drawn evenly between the two ends of `decoder_tflop`. A
    ParameterError if the device's peak is unknown.
    """
    if device.tflops is None:
        raise ParameterError(f"no float16 peak is known for {device.chip}; only the bandwidth bounds it")
    extra = np.random.default_rng(seed + 1).uniform(*decoder_tflop, size=_DRAWS)
    rates = [
        frames / (clip_seconds(stages, device, e) + tflop / (e * device.tflops))
        for e, tflop in zip(efficiency.draws(_DRAWS, seed), extra, strict=True)
    ]
    low, middle, high = np.quantile(rates, [0.5 - LEVEL / 2, 0.5, 0.5 + LEVEL / 2])
    kind = f"{100 * LEVEL:.0f} % prediction"
    return Interval(middle, low, high, kind=kind, over="published workloads", n=efficiency.workloads)


def fps_cases(
    stages: Sequence[Stage], device: Device, frames: int, *, decoder_tflop: tuple[float, float], seed: int = 0
) -> tuple[pd.DataFrame, Interval]:
    """Frames/s for each figure of a device's peak, and one interval that holds all cases; arguments as `fps_interval`.

    A measured speed on the chip itself needs no peak: the anchors of this chip give a last case each, without an
    interval. The anchors are fitted anew in each case, since their own efficiencies rest on the same peak. The interval
    has the first case's value between the lowest and the highest end of all.
    """
    rows = []
    for peak in filter(None, (device.tflops, device.other_tflops)):
        fit = fit_efficiency(calibration_rows({device.chip: peak}))
        made = fps_interval(stages, replace(device, tflops=peak), fit, frames, decoder_tflop=decoder_tflop, seed=seed)
        rows.append((f"nominal peak {peak:g} TFLOP/s", peak, fit.typical, *made))
    low, high = min(r[4] for r in rows), max(r[5] for r in rows)
    held = Interval(rows[0][3], low, high, kind=made.kind, over=made.over, n=made.n)
    own = calibration_rows()
    for anchor in own[own["chip"] == device.chip].itertuples():
        reached = anchor.efficiency * device.tflops
        rate = frames / (clip_seconds(stages, device, anchor.efficiency) + sum(decoder_tflop) / 2 / reached)
        rows.append((f"as fast as {anchor.workload} there", reached, 1.0, rate, math.nan, math.nan))
    columns = ["case", "TFLOP/s", "typical efficiency", "frames/s", "low", "high"]
    return pd.DataFrame(rows, columns=columns), held

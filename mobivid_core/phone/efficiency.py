"""The roofline's one fitted number, the efficiency, from published speeds, with its error.

Paper: none; the anchors are Stable Diffusion speeds that others published for these chips (data/paper/calibration.csv).
The efficiency is the share of a Neural Engine's nominal float16 peak that they reach; its spread over chips and
workloads gives the interval of every prediction. All predictions are `derived`, and rest on peaks partly `assumed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mobivid_core.errors import ParameterError
from mobivid_core.measure.intervals import Interval
from mobivid_core.phone.devices import NEURAL_ENGINE, Device, load_devices
from mobivid_core.phone.roofline import Stage, clip_seconds
from mobivid_core.published import calibration


@dataclass(frozen=True)
class Efficiency:
    """Share of the nominal peak that published models reach: a log-normal fit.

    Attributes:
        log_mean: Mean of log(efficiency).
        log_sd: Standard deviation of log(efficiency) over the calibration rows.
        n: Calibration rows.
    """

    log_mean: float
    log_sd: float
    n: int

    @property
    def typical(self) -> float:
        """Geometric mean."""
        return math.exp(self.log_mean)

    def draws(self, count: int, seed: int = 0) -> np.ndarray:
        """Efficiencies that one more chip and workload might have: Student's t, as mean and spread are estimated."""
        t = np.random.default_rng(seed).standard_t(self.n - 1, size=count)
        return np.minimum(1.0, np.exp(self.log_mean + t * self.log_sd * math.sqrt(1 + 1 / self.n)))

    def interval(self, level: float = 0.8) -> tuple[float, float]:
        """Prediction interval for one more chip and workload."""
        from scipy.stats import t

        half = t.ppf(0.5 + level / 2, self.n - 1) * self.log_sd * math.sqrt(1 + 1 / self.n)
        return math.exp(self.log_mean - half), min(1.0, math.exp(self.log_mean + half))


def calibration_rows() -> pd.DataFrame:
    """Published speeds with the efficiency each implies; chips whose peak is unknown are left out."""
    peaks = {d.chip: d.tflops for d in load_devices() if d.engine == NEURAL_ENGINE and d.tflops is not None}
    rows = calibration()
    rows = rows[rows["chip"].isin(peaks)].reset_index(drop=True)
    rows["fp16_tflops"] = rows["chip"].map(peaks)
    rows["efficiency"] = rows["tflop_per_iteration"] * rows["iterations_per_s"] / rows["fp16_tflops"]
    return rows


def fit_efficiency(rows: pd.DataFrame | None = None) -> Efficiency:
    """Log-normal efficiency over calibration rows.

    Raises:
        ParameterError: Fewer than three rows.
    """
    rows = calibration_rows() if rows is None else rows
    if len(rows) < 3:
        raise ParameterError(f"{len(rows)} calibration rows are too few to estimate a spread; three are needed")
    logs = np.log(rows["efficiency"].to_numpy(float))
    return Efficiency(float(logs.mean()), float(logs.std(ddof=1)), len(logs))


def leave_one_out(by: str = "chip") -> pd.DataFrame:
    """Predict each chip's (or workload's) published speeds from the others'.

    Args:
        by: "chip" or "workload": what is left out at a time.

    Returns:
        The calibration rows with `predicted_per_s`, relative `error`, and whether the 80 % interval `covers`.
    """
    rows = calibration_rows()
    parts = []
    for value in rows[by].unique():
        held, fit = rows[rows[by] == value].copy(), fit_efficiency(rows[rows[by] != value])
        low, high = fit.interval(0.8)
        held["predicted_per_s"] = fit.typical * held["fp16_tflops"] / held["tflop_per_iteration"]
        held["error"] = (held["predicted_per_s"] / held["iterations_per_s"] - 1).abs()
        held["covers"] = held["efficiency"].between(low, high)
        parts.append(held)
    return pd.concat(parts, ignore_index=True)


def fps_interval(
    stages: Sequence[Stage], device: Device, efficiency: Efficiency, frames: int, *, level: float = 0.8,
    decoder_tflop: tuple[float, float] | None = None, draws: int = 4000, seed: int = 0,
) -> Interval:  # fmt: skip
    """Predicted frames/s with its interval: (median, low, high).

    Args:
        stages: From `clip_stages`; without a decoder if `decoder_tflop` is given.
        device: With a known peak.
        efficiency: From `fit_efficiency`.
        frames: Frames of a clip.
        level: Probability inside the interval.
        decoder_tflop: Smallest and largest cost of an unknown decoder, drawn evenly between them.
        draws: Monte Carlo draws.
        seed: Seed of the draws.

    Raises:
        ParameterError: The device's peak is unknown.
    """
    if device.tflops is None:
        raise ParameterError(f"no float16 peak is known for {device.chip}; only the bandwidth bounds it")
    rng = np.random.default_rng(seed + 1)
    extra = np.zeros(draws) if decoder_tflop is None else rng.uniform(*decoder_tflop, size=draws)
    rates = [
        frames / (clip_seconds(stages, device, e) + tflop / (e * device.tflops))
        for e, tflop in zip(efficiency.draws(draws, seed), extra, strict=True)
    ]
    low, middle, high = np.quantile(rates, [0.5 - level / 2, 0.5, 0.5 + level / 2])
    return Interval(middle, low, high, kind=f"{100 * level:.0f} % prediction", over="published speeds", n=efficiency.n)

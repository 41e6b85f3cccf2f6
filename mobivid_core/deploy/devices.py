"""How fast other devices would be: a roofline model calibrated on published speeds, with its error.

Paper: 15 frames/s on an iPhone 16 Pro Max (data/paper claim C01). Nobody without that phone can check it, but anybody
can ask which efficiency it needs and whether others' published models reach that efficiency on such chips.

Each stage takes max(FLOPs / (efficiency x peak), bytes / bandwidth) seconds. One number is fitted: the efficiency, the
share of a Neural Engine's nominal float16 peak that Stable Diffusion's published speeds reach. Its spread over chips
and workloads gives the interval. Everything predicted is `derived`, and rests on peaks that are partly `assumed`.

Simplified: stages run one after the other at one efficiency; no thermal throttling, no compilation or loading time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mobivid_core.deploy.counts import Grid, LayerCount, dit_counts
from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.report.published import calibration, devices

NEURAL_ENGINE = "Neural Engine"


@dataclass(frozen=True)
class Device:
    """One engine of one device; unknown values are None.

    Attributes:
        name: The product.
        chip: Its chip.
        engine: "Neural Engine", "GPU", ...
        tflops: Peak float16 TFLOP/s.
        gb_s: Memory bandwidth in GB/s.
        ram_gb: Memory in GB.
        evidence: Class of the weakest of these numbers.
        source: Where they come from.
    """

    name: str
    chip: str
    engine: str
    tflops: float | None
    gb_s: float | None
    ram_gb: float | None
    evidence: str
    source: str


@dataclass(frozen=True)
class Stage:
    """Work that is done `repeats` times a clip.

    Attributes:
        name: "ffn", "decoder", ...
        tflop: Work of one run in 1e12 FLOPs.
        gigabytes: Memory traffic of one run in 1e9 bytes.
        repeats: Runs a clip.
    """

    name: str
    tflop: float
    gigabytes: float
    repeats: int = 1


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


def load_devices() -> list[Device]:
    """All devices of data/paper/devices.csv; blank cells become None."""
    rows = devices().astype(object)
    rows = rows.where(rows.notna(), None).to_dict("records")
    return [
        Device(r["device"] or r["chip"], r["chip"], r["engine"], r["fp16_tflops"], r["dram_gb_s"], r["ram_gb"],
               r["evidence"], r["source"])
        for r in rows
    ]  # fmt: skip


def find_device(chip: str, engine: str = NEURAL_ENGINE) -> Device:
    """One device by chip and engine.

    Raises:
        ParameterError: None or several match.
    """
    found = [d for d in load_devices() if (d.chip, d.engine) == (chip, engine)]
    if len(found) != 1:
        known = ", ".join(sorted({f"{d.chip} ({d.engine})" for d in load_devices()}))
        raise ParameterError(f"{len(found)} devices are {chip!r} ({engine}); the known ones are {known}")
    return found[0]


def clip_stages(
    cfg: DiTConfig, grid: Grid, *, text_tokens: int = 77, steps: int = 4, guidance: bool = False,
    decoder: LayerCount | None = None, text_encoder: LayerCount | None = None,
) -> list[Stage]:  # fmt: skip
    """The stages of one clip: text encoder once, each layer kind of the transformer in every pass, decoder once."""
    passes = steps * (2 if guidance else 1)
    counts = dit_counts(cfg, grid, text_tokens)
    stages = [] if text_encoder is None else [stage_of("text encoder", text_encoder)]
    # Timestep MLP and modulation tables are precomputed on the host.
    kinds = [k for k in counts if k not in ("total", "timestep", "modulation")]
    stages += [Stage(kind, counts[kind].flops / 1e12, counts[kind].traffic_bytes / 1e9, passes) for kind in kinds]
    return stages + ([] if decoder is None else [stage_of("decoder", decoder)])


def stage_of(name: str, count: LayerCount, repeats: int = 1) -> Stage:
    """A stage from counts."""
    return Stage(name, count.flops / 1e12, count.traffic_bytes / 1e9, repeats)


def stage_seconds(stage: Stage, device: Device, efficiency: float) -> float:
    """Seconds of all repeats of a stage; with an unknown peak only the bandwidth's lower bound is left.

    Raises:
        ParameterError: Efficiency outside (0, 1].
    """
    if not 0 < efficiency <= 1:
        raise ParameterError(f"efficiency must lie in (0, 1], got {efficiency}")
    compute = 0.0 if device.tflops is None else stage.tflop / (efficiency * device.tflops)
    memory = 0.0 if device.gb_s is None else stage.gigabytes / device.gb_s
    return stage.repeats * max(compute, memory)


def clip_seconds(stages: Sequence[Stage], device: Device, efficiency: float) -> float:
    """Seconds of a whole clip."""
    return sum(stage_seconds(stage, device, efficiency) for stage in stages)


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
) -> tuple[float, float, float]:  # fmt: skip
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
    return float(middle), float(low), float(high)


def required_efficiency(stages: Sequence[Stage], device: Device, frames: int, fps: float) -> float:
    """Efficiency at which a clip reaches `fps`; above 1, or infinite where bandwidth alone forbids it, it cannot.

    Raises:
        ParameterError: The device's peak is unknown.
    """
    if device.tflops is None:
        raise ParameterError(f"no float16 peak is known for {device.chip}")
    budget = frames / fps
    streaming = [s.repeats * s.gigabytes / device.gb_s if device.gb_s else 0.0 for s in stages]
    if sum(streaming) >= budget:
        return math.inf
    # The total is monotone in the efficiency: bisect, starting above any that could be needed.
    low, high = 1e-6, sum(s.repeats * s.tflop for s in stages) / device.tflops / (budget - sum(streaming))
    for _ in range(100):
        middle = (low + high) / 2
        compute = [s.repeats * s.tflop / (middle * device.tflops) for s in stages]
        total = sum(max(c, m) for c, m in zip(compute, streaming, strict=True))
        low, high = (middle, high) if total > budget else (low, middle)
    return high

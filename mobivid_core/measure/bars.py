"""Are codec and teacher good enough to build on? Each bar is set before the run and judged by its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from mobivid_core.measure.intervals import Interval, cells

#: Cells of what was not measured.
BLANK = {"value": math.nan, "low": math.nan, "high": math.nan, "interval": "", "n": 0}


@dataclass(frozen=True)
class Bar:
    """A bar that a measure has to clear: not below `bound` where `at_least`, else not above it."""

    measure: str
    bound: float
    at_least: bool = True


BORDERS = "differences across token borders, over those inside tokens"
SHARPNESS = "energy of the Laplacian, over real clips'"

#: What the main VAE has to reach on captioned clips.
CODEC_BARS: dict[str, Bar] = {
    "borders": Bar(f"reconstructions: {BORDERS}", 1.5, at_least=False),
    "sharpness": Bar(f"reconstructions: {SHARPNESS}", 0.6),
}
#: What the teacher has to reach on test captions. A gap says nothing where hardly any clip is right: read it last.
TEACHER_BARS: dict[str, Bar] = {
    "all_together": Bar("every attribute right", 0.95),
    "object_class": Bar("shape right", 0.95),
    "color": Bar("colour right", 0.95),
    "action": Bar("motion right", 0.95),
    "scene": Bar("background right", 0.95),
    "unseen_gap": Bar("trained minus held-out combinations", 0.05, at_least=False),
    "wording_gap": Bar("trained minus unseen wordings", 0.05, at_least=False),
    "distance_ratio": Bar("Frechet distance in the trusted space, times that of reconstructions", 1.5, at_least=False),
    "borders": Bar(BORDERS, 1.8, at_least=False),
    "sharpness": Bar(SHARPNESS, 0.5),
}


def verdict(bar: Bar, interval: Interval) -> str:
    """One of "met", "met, within chance" (the interval crosses the bar), "missed, within chance" and "missed"."""
    value, low, high = interval if bar.at_least else (-interval[0], -interval[2], -interval[1])
    bound = bar.bound if bar.at_least else -bar.bound
    if value >= bound:
        return "met" if low >= bound else "met, within chance"
    return "missed, within chance" if high >= bound else "missed"


def bars_table(values: dict[str, Interval], bars: dict[str, Bar] = TEACHER_BARS) -> pd.DataFrame:
    """A row a bar: measure, `intervals.cells`, bar ("at least 0.95"), verdict; without a value "not measured"."""
    rows = [
        {
            "measure": bar.measure,
            **(cells(values[key]) if key in values else BLANK),
            "bar": f"{'at least' if bar.at_least else 'at most'} {bar.bound:g}",
            "verdict": verdict(bar, values[key]) if key in values else "not measured",
        }
        for key, bar in bars.items()
    ]
    return pd.DataFrame(rows)

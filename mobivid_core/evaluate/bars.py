"""Is the teacher good enough to be compressed? Each bar is set before the run and judged by its interval."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Bar:
    """A bar that a measure has to clear.

    Attributes:
        measure: Its name, as shown.
        bound: The bar.
        at_least: True where the value must not fall below it, False where it must not exceed it.
    """

    measure: str
    bound: float
    at_least: bool = True


TEACHER_BARS: dict[str, Bar] = {
    "all_together": Bar("every attribute right", 0.75),
    "object_class": Bar("shape right", 0.85),
    "color": Bar("colour right", 0.85),
    "action": Bar("motion right", 0.85),
    "scene": Bar("background right", 0.85),
    "unseen_gap": Bar("trained minus held-out combinations", 0.10, at_least=False),
    "frechet_ratio": Bar("Frechet distance in judge features, times that of reconstructions", 2.0, at_least=False),
    "image_ratio": Bar("the same in features of a network that never saw such clips", 2.0, at_least=False),
}


def verdict(bar: Bar, interval: Interval) -> str:
    """One of "met", "met, within chance" (the interval crosses the bar), "missed, within chance" and "missed"."""
    value, low, high = interval if bar.at_least else (-interval[0], -interval[2], -interval[1])
    bound = bar.bound if bar.at_least else -bar.bound
    if value >= bound:
        return "met" if low >= bound else "met, within chance"
    return "missed, within chance" if high >= bound else "missed"


def bars_table(values: dict[str, Interval], bars: dict[str, Bar] = TEACHER_BARS) -> pd.DataFrame:
    """Every bar beside what was measured.

    Args:
        values: {key of `bars`: (value, low, high)}.
        bars: The bars.

    Returns:
        Columns measure, value, low, high, bar ("at least 0.75"), verdict.
    """
    rows = [
        (
            bar.measure,
            *values[key],
            f"{'at least' if bar.at_least else 'at most'} {bar.bound:g}",
            verdict(bar, values[key]),
        )
        for key, bar in bars.items()
    ]
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "bar", "verdict"])

"""Figures of quality tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mobivid_core.evaluate.minivbench import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def score_bars(rows: dict[str, Scores], names: Sequence[str]) -> Figure:
    """Bars with intervals: a group a measure, a bar a row title.

    Args:
        rows: {row title: scores}.
        names: Measures on [0, 1] to show, in order.
    """
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 3.6))
    width, places = 0.8 / len(rows), np.arange(len(names))
    for i, (title, scores) in enumerate(rows.items()):
        value, low, high = np.array([scores.values[name] for name in names]).T
        ax.bar(places + i * width, value, width, yerr=[value - low, high - value], label=title, error_kw={"lw": 1})
    ax.set_xticks(places + width * (len(rows) - 1) / 2, names)
    ax.set(ylabel="share of clips right", ylim=(0, 1.3), yticks=np.linspace(0, 1, 6))
    ax.legend(ncols=2, loc="upper center")
    return fig


def quality_curves(
    frame: pd.DataFrame,
    x: str,
    shares: Sequence[str] = ("all_together", "object_class", "action"),
    distance: str = "frechet_reconstruction",
    floor: float | None = None,
    log2: bool = False,
) -> Figure:
    """Quality against one dial: shares of right captions on the left, a distance on the right, intervals shaded.

    Args:
        frame: From `minivbench.table`: `<name>`, `<name>_low` and `<name>_high` of each measure, and the dial.
        x: Column of the dial.
        shares: Measures of the left panel.
        distance: Measure of the right panel.
        floor: What reconstructions score on that measure with as many clips; drawn as a dashed line.
        log2: Draw the dial on a logarithmic axis with a tick at each value.
    """
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    where = frame[x].astype(float)
    for name, ax in [(share, left) for share in shares] + [(distance, right)]:
        ax.plot(where, frame[name], marker="o", label=name)
        ax.fill_between(where, frame[f"{name}_low"], frame[f"{name}_high"], alpha=0.15)
    left.set(xlabel=x, ylabel="share of clips right", ylim=(-0.02, 1.05))
    right.set(xlabel=x, ylabel=distance.replace("_", " "), ylim=(0, None))
    left.legend()
    if floor is not None:
        right.axhline(floor, ls="--", color="0.4", lw=1, label="VAE reconstructions")
        right.legend()
    if log2:
        for ax in (left, right):
            ax.set_xscale("log", base=2)
            ax.set_xticks(where, [f"{value:g}" for value in where])
    return fig

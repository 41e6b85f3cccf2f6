"""Figures of the deployment notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mobivid_core.phone.efficiency import Efficiency
from mobivid_core.phone.tiled import TileTiming
from mobivid_core.show.style import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cost_shares(shares: dict[str, dict[str, int]]) -> Figure:
    """Stacked bars of FLOP shares: one bar a model, one colour a layer kind."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 0.55 * len(shares) + 1.6))
    left = np.zeros(len(shares))
    for kind, colour in zip(next(iter(shares.values())), PALETTE.values(), strict=False):
        widths = np.array([100 * s[kind] / sum(s.values()) for s in shares.values()])
        ax.barh(list(shares), widths, left=left, color=colour, label=kind)
        for y, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width > 6:
                ax.text(start + width / 2, y, f"{width:.0f}", ha="center", va="center", color="white", fontsize=9)
        left += widths
    ax.set(xlabel="share of a forward pass's FLOPs (%)", xlim=(0, 100))
    ax.invert_yaxis()
    ax.grid(False)
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return fig


def tile_sweep(rows: Sequence[TileTiming]) -> Figure:
    """Time and peak memory of one FFN against the number of tiles."""
    import matplotlib.pyplot as plt

    fig, (time, memory) = plt.subplots(1, 2, figsize=(7.5, 3.2))
    tiles = [r.tiles for r in rows]
    time.plot(tiles, [1e3 * r.seconds for r in rows], "o-", label="median")
    time.plot(tiles, [1e3 * r.fastest for r in rows], "o--", color=PALETTE["sky"], label="fastest")
    time.set(ylabel="time of one FFN (ms)")
    memory.plot(tiles, [r.peak_mib for r in rows], "s-", color=PALETTE["vermillion"], label="peak (measured)")
    memory.plot(
        tiles, [r.hidden_mib for r in rows], "s--", color=PALETTE["orange"], label="hidden activation (derived)"
    )
    memory.set(ylabel="MiB")
    for ax in (time, memory):
        ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
        ax.set_xscale("log", base=2)
        ax.set_xticks(tiles, [str(t) for t in tiles])
        ax.set_xlabel("tiles over the hidden axis")
        ax.legend()
    return fig


def calibration(rows: pd.DataFrame, fit: Efficiency) -> Figure:
    """Efficiency implied by each published speed, with the fit's typical value and 80 % interval."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 3.2))
    chips = list(dict.fromkeys(rows["chip"]))
    for (workload, part), marker in zip(rows.groupby("workload", sort=False), "os^v", strict=False):
        ax.plot([chips.index(c) for c in part["chip"]], 100 * part["efficiency"], marker, markersize=8, label=workload)
    low, high = fit.interval(0.8)
    ax.axhspan(100 * low, 100 * high, color=PALETTE["sky"], alpha=0.2, label="80 % interval for one more")
    ax.axhline(100 * fit.typical, color=PALETTE["black"], linewidth=1, label="typical")
    ax.set_xticks(range(len(chips)), chips)
    ax.set(ylabel="share of the nominal peak (%)", ylim=(0, None))
    ax.legend(ncols=2, loc="lower center")
    return fig


def predicted_against_measured(table: pd.DataFrame, bar: float) -> Figure:
    """Predicted against measured milliseconds of `cpu_model.compare`, with the band of a factor `bar`."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(4.6, 4.2))
    times = table[["predicted ms", "measured ms"]].to_numpy()
    ends = np.array([0.7 * times.min(), 1.4 * times.max()])
    ax.fill_between(ends, ends / bar, ends * bar, color=PALETTE["sky"], alpha=0.2, label=f"within a factor of {bar:g}")
    ax.plot(ends, ends, color=PALETTE["black"], linewidth=1)
    for (part, rows), marker in zip(table.groupby("part", sort=False), "os^", strict=False):
        ax.plot(rows["measured ms"], rows["predicted ms"], marker, markersize=8, label=part)
    ax.set(xscale="log", yscale="log", xlabel="measured (ms)", ylabel="predicted (ms)", xlim=ends, ylim=ends)
    ax.legend()
    return fig


def predicted_rates(table: pd.DataFrame, published_fps: float) -> Figure:
    """Predicted frames/s of each device with its interval, and the paper's number as a line."""
    import matplotlib.pyplot as plt

    known = table.dropna(subset=["frames/s"]).reset_index(drop=True)
    fig, ax = plt.subplots(figsize=(7, 0.42 * len(known) + 1.4))
    errors = [known["frames/s"] - known["low"], known["high"] - known["frames/s"]]
    ax.errorbar(
        known["frames/s"], known.index, xerr=errors, fmt="o", capsize=4, label="predicted, 80 % interval (derived)"
    )
    ax.axvline(
        published_fps, color=PALETTE["vermillion"], linestyle="--", label="published for iPhone 16 Pro Max (paper)"
    )
    ax.set_yticks(known.index, [f"{r.device} ({r.chip})" for r in known.itertuples()])
    ax.set(xlabel="frames/s", xlim=(0, None))
    ax.invert_yaxis()
    ax.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0))
    return fig


def needed_efficiency(sweep: pd.DataFrame, fit: Efficiency, decoders: dict[str, float]) -> Figure:
    """Efficiency needed against the decoder's cost, over the interval that published models reach."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 3.6))
    low, high = fit.interval(0.8)
    ax.axhspan(100 * low, 100 * high, color=PALETTE["sky"], alpha=0.2, label="reached by published models (80 %)")
    for column in sweep.columns[1:]:
        ax.plot(sweep["decoder TFLOP"], 100 * sweep[column], label=column)
    for name, tflop in decoders.items():
        ax.axvline(tflop, color="0.4", linewidth=1, linestyle=":")
        ax.text(tflop, 1.01, name, ha="center", va="bottom", fontsize=8, transform=ax.get_xaxis_transform())
    ax.axhline(100, color=PALETTE["black"], linewidth=1, label="the whole peak")
    ax.set(xlabel="decoder's cost (TFLOP a clip)", ylabel="efficiency needed (% of peak)", yscale="log", ylim=(10, 400))
    ax.set_yticks([10, 20, 50, 100, 200, 400], ["10", "20", "50", "100", "200", "400"])
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig

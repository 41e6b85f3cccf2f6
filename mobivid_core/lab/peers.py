"""Published systems compared with each other; our miniature in a separate panel.

The miniature's scores come from another benchmark on other clips than the published ones: the two never
share an axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mobivid_core.phone.latent_costs import pareto
from mobivid_core.show.style import EVIDENCE_COLOURS, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL_STEP = 0.13  # height of a label, in VBench points
#: Our four-step students: name, headline of the speed-up, headline of the accuracy.
_OURS = (
    ("distilled", "speedup_distilled", "distilled_accuracy_over_teacher"),
    ("pruned and distilled", "speedup_pruned_distilled", "student_accuracy_over_teacher"),
)


def peers_figure(published: pd.DataFrame, headlines: pd.DataFrame) -> Figure:
    """Quality against size and time for published systems (as far as known); the miniature in a panel of its own."""
    import matplotlib.pyplot as plt

    figure, (size, time, ours) = plt.subplots(1, 3, figsize=(11, 3.8), width_ratios=(1.3, 1, 0.8))
    _scatter(size, published, "params_b", "parameters (billions)")
    _scatter(time, published, "latency_s", "time for a clip (s); clips and phones differ")
    size.set_title("published: size")
    time.set_title("published: time on a phone")
    classes = [c for c in EVIDENCE_COLOURS if c in set(published["evidence"])]
    handles = [plt.Line2D([], [], marker="o", ls="", color=EVIDENCE_COLOURS[c], label=c) for c in classes]
    size.legend(handles=handles, loc="lower right")
    _miniature(ours, headlines.set_index("id"))
    return figure


def peers_told(published: pd.DataFrame) -> str:
    """One sentence: which published systems no other beats in time and VBench total at once."""
    timed = published.dropna(subset=["latency_s", "vbench_total"])
    ahead = timed.loc[pareto(timed["latency_s"], timed["vbench_total"]), "system"].str.split(" (", regex=False).str[0]
    return (
        f"Of {len(timed)} published systems with a time on a phone and a VBench total, no other beats "
        f"{', '.join(ahead)} in both; clip lengths, resolutions and phones differ between them. The grey lines join "
        "them and their like by size; ours has a panel of its own."
    )


def verdicts_figure(counts: pd.DataFrame) -> Figure:
    """Claims by verdict (`scorecard.count_verdicts`), tested trends apart from everything else."""
    import matplotlib.pyplot as plt

    rows = counts.assign(name=counts["class"] + ": " + counts["verdict"]).iloc[::-1]
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(rows) + 1))
    tested = rows["tests"] > 0  # a trend without a number, or without its interval, was not put to a test
    axes.barh(rows["name"], rows["claims"], color=[PALETTE["blue"] if t else "0.75" for t in tested])
    axes.set(xlabel="claims (blue: put to a test; grey: not)")
    return figure


def _scatter(axes: Axes, frame: pd.DataFrame, cost: str, label: str) -> None:
    known = frame.dropna(subset=[cost, "vbench_total"])
    front = known[pareto(known[cost], known["vbench_total"])].sort_values(cost)
    axes.step(front[cost], front["vbench_total"], where="post", color="0.6", lw=1, zorder=1)
    colours = known["evidence"].map(EVIDENCE_COLOURS)
    axes.scatter(known[cost], known["vbench_total"], c=colours, s=28, zorder=2)
    for row, height in _label_heights(known, cost):
        name = row.system.split(" (")[0]
        axes.annotate(name, (getattr(row, cost), height), xytext=(5, -2), textcoords="offset points", fontsize=6.5)
    axes.set(xlabel=label, ylabel="VBench total")
    axes.margins(x=0.25, y=0.1)


def _label_heights(known: pd.DataFrame, cost: str) -> list[tuple]:
    """Each system once, with the height of its label: pushed up where it would lie on the one below."""
    placed: list[tuple] = []
    near = 0.35 * (known[cost].max() - known[cost].min())
    for row in known.sort_values("vbench_total").itertuples():
        if any(row.system.split(" (")[0] == other.system.split(" (")[0] for other, _ in placed):
            continue
        below = [h for other, h in placed if abs(getattr(other, cost) - getattr(row, cost)) < near]
        placed.append((row, max([row.vbench_total, *(h + _LABEL_STEP for h in below if h <= row.vbench_total + 1)])))
    return placed


def _miniature(axes: Axes, headlines: pd.DataFrame) -> None:
    axes.set_title("ours (miniature)")
    axes.set(xlabel="speed-up over the teacher", ylabel="caption accuracy / teacher's")
    axes.scatter([1], [1], marker="s", color=PALETTE["black"], s=28)
    axes.annotate("teacher", (1, 1), xytext=(5, 4), textcoords="offset points", fontsize=7)
    known = [(name, headlines.loc[ids]) for name, *ids in _OURS if set(ids) <= set(headlines.index)]
    for name, rows in known:
        x, y = rows["value"].astype(float)
        across, up = np.fmax([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0.0).T[:, :, None]
        colour = EVIDENCE_COLOURS["measured"]
        axes.errorbar([x], [y], xerr=across, yerr=up, elinewidth=1, fmt="o", ms=5, color=colour)
        axes.annotate(name, (x, y), xytext=(-4, 5), textcoords="offset points", fontsize=7, ha="right")
    if not known:
        axes.text(0.5, 0.1, "students not recorded yet", transform=axes.transAxes, ha="center", fontsize=8, color="0.4")
    axes.margins(x=0.3, y=0.3)

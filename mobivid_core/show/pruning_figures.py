"""Figures of notebooks 03 and 04: heat maps of scores, kept widths, and size against KD loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.show.style import FIGURE_SIZE, PALETTE

#: Kinds of units and their titles.
GROUPS = (
    ("blocks", "block"), ("self_heads", "self-attention heads"), ("cross_heads", "cross-attention heads"),
    ("ffn", "FFN slices"),
)  # fmt: skip
#: Colour of each kind of width.
WIDTH_COLOURS = {"self_heads": PALETTE["sky"], "cross_heads": PALETTE["orange"], "ffn": PALETTE["green"]}
#: Arms of the curve: label and colour.
_LINES = {
    "any level, one queue": ("any level, one queue", "blue"),
    "any level, scores with take-over": ("same, with take-over", "sky"),
    "tri-level, equal widths (the paper's cut)": ("tri-level, the paper's cut", "vermillion"),
    "random units, the same blocks and widths": ("random units", "black"),
    "block-only": ("block-only", "green"),
    "head-only": ("head-only", "orange"),
    "FFN-only": ("FFN-only", "purple"),
}


def unit_frame(scores: Scores) -> pd.DataFrame:
    """One row a unit: block, kind, unit, score."""
    return pd.DataFrame(
        {"block": b, "kind": kind, "unit": u, "score": float(s)}
        for kind, _ in GROUPS
        for b, values in enumerate(_by_block(scores, kind))
        for u, s in enumerate(values)
    )


def _by_block(scores: Scores, kind: str) -> Sequence[np.ndarray]:
    """Scores of the units of one kind, an array a block."""
    return scores.blocks[:, None] if kind == "blocks" else getattr(scores, kind)


def heat_map(scores: Scores, label: str) -> Figure:
    """Blocks (rows) x units (columns, FFN in slices), one panel a level, one logarithmic colour scale named `label`."""
    # blocks of fewer units are filled up with nan
    grids = [np.array([*zip_longest(*_by_block(scores, kind), fillvalue=np.nan)]).T for kind, _ in GROUPS]
    values = np.concatenate([g[np.isfinite(g)] for g in grids])
    low, high = np.quantile(values[values > 0], 0.02), values.max()
    norm = LogNorm(low, high)
    widths = [max(1.6, g.shape[1]) for g in grids]
    fig, axes = plt.subplots(1, len(grids), figsize=(FIGURE_SIZE[0] + 1.5, 4.2), sharey=True, width_ratios=widths)
    for ax, grid, (_, title) in zip(axes, grids, GROUPS, strict=False):
        image = ax.imshow(np.clip(grid, low, high), norm=norm, cmap="viridis", aspect="auto", interpolation="nearest")
        ax.set(xlabel=title, xticks=[] if grid.shape[1] == 1 else [0, grid.shape[1] - 1])
        ax.grid(False)
    axes[0].set(ylabel="block", yticks=range(len(scores.blocks)))
    fig.colorbar(image, ax=axes, label=label, pad=0.01)
    return fig


def kept_widths(plans: dict[str, PruningPlan]) -> Figure:
    """Share of heads and neurons kept in every block, one panel a plan."""
    size = (FIGURE_SIZE[0], 1.7 * len(plans) + 0.6)
    fig, axes = plt.subplots(len(plans), 1, figsize=size, sharex=True, squeeze=False)
    for ax, (name, plan) in zip(axes[:, 0], plans.items(), strict=True):
        for k, (kind, widths) in enumerate(plan.source.units.items()):
            kept = [len(own) / widths[b] for b, own in zip(plan.keep_blocks, getattr(plan, kind), strict=True)]
            ax.bar(np.array(plan.keep_blocks) + 0.27 * (k - 1), kept, 0.25, color=WIDTH_COLOURS[kind], label=kind)
        ax.set(title=f"{name}: {plan.parameters / 1e6:.2f} M parameters", ylabel="share kept", ylim=(0, 1.05))
        ax.set_xticks(range(plan.source.blocks))
    axes[-1, 0].set_xlabel("block of the teacher (no bars: removed)")
    axes[0, 0].legend(ncols=3, loc="upper right")
    return fig


def size_against_loss(table: pd.DataFrame) -> Figure:
    """KD loss after recovery against parameters left: one line an arm over its budgets, named at its left end.

    In `arms_table`, "mild: " and "halfway: " before an arm's name are other budgets of the same arm.
    """
    fig, ax = plt.subplots(figsize=(FIGURE_SIZE[0], 4.2))
    refitted = table[~table["arm"].str.startswith("no refit")]
    arms = refitted["arm"].str.removeprefix("mild: ").str.removeprefix("halfway: ")
    for name, (label, colour) in _LINES.items():
        points = refitted[arms == name].sort_values("share")
        if points.empty:
            continue
        loss = points["KD recovered"]
        reach = [loss - points["low"], points["high"] - loss]
        ax.errorbar(points["share"], loss, yerr=reach, fmt="-o", ms=4, capsize=2, color=PALETTE[colour])
        ax.annotate(
            label, (points["share"].iloc[0], loss.iloc[0]), (-7, -3), textcoords="offset points", ha="right",
            fontsize=8, color=PALETTE[colour],
        )  # fmt: skip
    ax.set(xlabel="share of the teacher's parameters left", yscale="log", xlim=(0.36, 0.84))
    ax.set_ylabel("held-out KD loss, share of the teacher's power")
    return fig

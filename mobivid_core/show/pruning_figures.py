"""Figures of notebooks 03 and 04: heat maps of scores, kept widths, and size against KD loss."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.refit import RefitReport
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.show.style import FIGURE_SIZE, PALETTE

_GROUPS = (
    ("blocks", "block"),
    ("self_heads", "self-attention heads"),
    ("cross_heads", "cross-attention heads"),
    ("ffn", "FFN slices"),
)

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
    rows = [{"block": b, "kind": "blocks", "unit": 0, "score": float(s)} for b, s in enumerate(scores.blocks)]
    for kind, _ in _GROUPS[1:]:
        for b, values in enumerate(getattr(scores, kind)):
            rows += [{"block": b, "kind": kind, "unit": u, "score": float(s)} for u, s in enumerate(values)]
    return pd.DataFrame(rows)


def heat_map(scores: Scores, label: str, log: bool = True) -> Figure:
    """Blocks (rows) x units (columns), one panel a level, one colour scale.

    Args:
        scores: `ffn` in slices.
        label: Name of the colour bar.
        log: Logarithmic colours.
    """
    grids = [_grid(scores.blocks[:, None] if kind == "blocks" else getattr(scores, kind)) for kind, _ in _GROUPS]
    values = np.concatenate([g[np.isfinite(g)] for g in grids])
    low, high = (np.quantile(values[values > 0], 0.02), values.max()) if log else (values.min(), values.max())
    norm = plt.matplotlib.colors.LogNorm(low, high) if log else plt.matplotlib.colors.Normalize(low, high)
    widths = [max(1.6, g.shape[1]) for g in grids]
    fig, axes = plt.subplots(1, len(grids), figsize=(FIGURE_SIZE[0] + 1.5, 4.2), sharey=True, width_ratios=widths)
    for ax, grid, (_, title) in zip(axes, grids, _GROUPS, strict=False):
        image = ax.imshow(np.clip(grid, low, high), norm=norm, cmap="viridis", aspect="auto", interpolation="nearest")
        ax.set(xlabel=title, xticks=[] if grid.shape[1] == 1 else [0, grid.shape[1] - 1])
        ax.grid(False)
    axes[0].set(ylabel="block", yticks=range(len(scores.blocks)))
    fig.colorbar(image, ax=axes, label=label, pad=0.01)
    return fig


def _grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of unequal length as one array, nan where there is no unit."""
    grid = np.full((len(rows), max(1, max(len(r) for r in rows))), np.nan)
    for i, row in enumerate(rows):
        grid[i, : len(row)] = row
    return grid


def against_exact(exact: Scores, estimates: dict[str, Scores]) -> Figure:
    """Scatter of estimated against exact scores of every head, FFN slice and block, one panel an estimator."""
    fig, axes = plt.subplots(1, len(estimates), figsize=(FIGURE_SIZE[0] + 1.5, 3.2), sharex=True, squeeze=False)
    colours = dict(zip(("blocks", "self_heads", "cross_heads", "ffn"), PALETTE.values(), strict=False))
    for ax, (name, scores) in zip(axes[0], estimates.items(), strict=False):
        for kind, label in _GROUPS:
            ax.plot(exact.flat(kind), scores.flat(kind), "o", ms=3, alpha=0.6, color=colours[kind], label=label)
        ax.set(xscale="log", yscale="log", xlabel="exact rise of the KD loss", title=name)
    axes[0][0].set_ylabel("estimate")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return fig


def motion_by_block(motion_share: Scores, latent_frames: int = 3) -> Figure:
    """Share of the damage that changes over time, for each block and its units.

    Args:
        motion_share: From `exact_sensitivity`.
        latent_frames: t; an error drawn anew in every latent frame has a share of 1 - 1/t.
    """
    fig, ax = plt.subplots()
    blocks = np.arange(len(motion_share.blocks))
    for kind, colour in (("self_heads", "sky"), ("cross_heads", "orange"), ("ffn", "green")):
        for b, values in enumerate(getattr(motion_share, kind)):
            ax.plot(
                np.full(len(values), b),
                values,
                "o",
                ms=3,
                alpha=0.5,
                color=PALETTE[colour],
                label=kind if b == 0 else None,
            )
    ax.plot(blocks, motion_share.blocks, "-s", color=PALETTE["blue"], label="whole block")
    ax.axhline(1 - 1 / latent_frames, color="0.5", ls="--", lw=1, label="unrelated frames")
    ax.set(xlabel="block", ylabel="share of the damage\nthat varies over time", xticks=blocks)
    ax.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.15), fontsize=8)
    return fig


def kept_widths(plans: dict[str, PruningPlan]) -> Figure:
    """Share of heads and neurons kept in every block, one panel a plan."""
    fig, axes = plt.subplots(
        len(plans), 1, figsize=(FIGURE_SIZE[0], 1.7 * len(plans) + 0.6), sharex=True, squeeze=False
    )
    for ax, (name, plan) in zip(axes[:, 0], plans.items(), strict=False):
        widths = {
            "self_heads": plan.source.self_heads,
            "cross_heads": plan.source.cross_heads,
            "ffn": plan.source.ffn_widths,
        }
        for k, (kind, colour) in enumerate(zip(widths, ("sky", "orange", "green"), strict=False)):
            kept = [
                len(units) / widths[kind][b] for b, units in zip(plan.keep_blocks, getattr(plan, kind), strict=False)
            ]
            ax.bar(np.array(plan.keep_blocks) + 0.27 * (k - 1), kept, 0.25, color=PALETTE[colour], label=kind)
        ax.set(
            title=f"{name}: {plan.parameters / 1e6:.2f} M parameters",
            ylabel="share kept",
            ylim=(0, 1.05),
            xticks=range(plan.source.blocks),
        )
    axes[-1, 0].set_xlabel("block of the teacher (no bars: removed)")
    axes[0, 0].legend(ncols=3, loc="upper right")
    return fig


def refit_errors(report: RefitReport) -> Figure:
    """Error of each layer's target on the calibration set, before and after its least-squares solution."""
    fig, ax = plt.subplots()
    x = np.arange(len(report.layers))
    ax.plot(x, report.before, "o", ms=4, color=PALETTE["vermillion"], label="pruned weights")
    ax.plot(x, report.after, "o", ms=4, color=PALETTE["blue"], label="solved weights")
    ax.vlines(x, report.after, report.before, color="0.8", zorder=0)
    ax.set(
        yscale="log",
        ylabel="relative error of the target",
        xlabel="layer, in order",
        xticks=x[1::3],
        xticklabels=[name.split(".")[1] if name.startswith("blocks") else "out" for name in report.layers[1::3]],
    )
    ax.legend()
    return fig


def size_against_loss(table: pd.DataFrame) -> Figure:
    """KD loss after recovery against parameters left: one line an arm over its budgets, named at its left end.

    Args:
        table: From `arms_table`; "mild: " and "halfway: " before an arm's name are other budgets of the same arm.
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


def span_against_motion(span: Sequence[np.ndarray], motion_share: Scores, latent_frames: int) -> Figure:
    """Self-attention heads: attention to other latent frames against the share of their damage that changes over time.

    Args:
        span: From `other_frame_attention`.
        motion_share: From `exact_sensitivity`.
        latent_frames: t; attention without preference leaves its frame with 1 - 1/t.
    """
    fig, ax = plt.subplots()
    blocks = np.repeat(np.arange(len(span)), [len(values) for values in span])
    points = ax.scatter(np.concatenate(span), motion_share.flat("self_heads"), c=blocks, cmap="viridis", s=22)
    ax.axvline(1 - 1 / latent_frames, color="0.5", ls="--", lw=1, label="looks everywhere alike")
    ax.set(xlabel="attention on other latent frames", ylabel="share of the damage\nthat varies over time")
    ax.legend()
    fig.colorbar(points, ax=ax, label="block")
    return fig

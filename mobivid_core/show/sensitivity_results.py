"""Tables and figures of notebook 03 with their findings: damage of units, estimators, motion, stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mobivid_core.measure.intervals import rank_correlation
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.show.outcome import FigureResult, TableResult
from mobivid_core.show.pruning_figures import GROUPS, WIDTH_COLOURS, heat_map, unit_frame
from mobivid_core.show.style import FIGURE_SIZE, PALETTE

#: The estimator whose scores plan the cut.
OURS = "Gauss-Newton, 4 probes"
#: Estimators drawn against exact removal: ours, the best of the task loss, and the cheapest.
DRAWN = (OURS, "gate Fisher, task loss", "weight magnitude")
_KINDS = ("widths", "self_heads", "cross_heads", "ffn", "blocks")


def damage_map(exact: Scores) -> FigureResult:
    """Heat map of the exact damage of every block, head and FFN slice."""
    ratio = exact.blocks.max() / exact.blocks.min()
    decades = np.ptp(np.log10(exact.flat("widths").clip(1e-12)))
    finding = (
        f"Removing the most important block raises the KD loss {ratio:.0f} times as much as removing the least "
        f"important one; heads and FFN slices differ by {decades:.1f} decades. Uniform pruning ignores both."
    )
    return FigureResult(heat_map(exact, "rise of the KD loss"), finding, paper_item="Figure 2", data=unit_frame(exact))


def estimator_table(exact: Scores, estimates: Mapping[str, Scores], influence: np.ndarray) -> TableResult:
    """Rank correlation of every estimator, `OURS` and block `influence` (n,) among them, with exact removal; costs."""
    cost = {"forward passes": exact.passes, "seconds": exact.seconds}
    rows = [{"estimator": "exact, one at a time", **cost, "rho widths": 1.0, "rho blocks": 1.0}]
    for name, found in estimates.items():
        rho = {f"rho {kind}": rank_correlation(exact.flat(kind), found.flat(kind)).value for kind in _KINDS}
        rows.append({"estimator": name, "forward passes": found.passes, "seconds": found.seconds, **rho})
    table = pd.DataFrame(rows)
    table["time / exact"] = table["seconds"] / exact.seconds
    blocks_only = {"estimator": "block influence (1 - cos)", "forward passes": 1}
    table.loc[len(table)] = blocks_only | {"rho blocks": rank_correlation(exact.blocks, influence).value}
    ours = table[table["estimator"] == OURS].iloc[0]
    finding = (
        f"Four Gauss-Newton probes rank heads and FFN slices like exact removal (rho {ours['rho widths']:.2f}) and "
        f"blocks with rho {ours['rho blocks']:.2f}, in 1/{1 / ours['time / exact']:.0f} of its time."
    )
    return TableResult(table, finding)


def estimates_figure(exact: Scores, estimates: Mapping[str, Scores]) -> FigureResult:
    """Estimated against exact damage of every head, FFN slice and block, a panel for each estimator of `DRAWN`."""
    shown = {name: estimates[name] for name in DRAWN}
    size = np.median(estimates[OURS].flat("widths") / exact.flat("widths"))
    units = [unit_frame(scores).assign(estimator=name) for name, scores in {"exact": exact, **shown}.items()]
    fig, axes = plt.subplots(1, len(shown), figsize=(FIGURE_SIZE[0] + 1.5, 3.2), sharex=True, squeeze=False)
    for ax, (name, scores) in zip(axes[0], shown.items(), strict=True):
        for kind, label in GROUPS:
            ax.plot(exact.flat(kind), scores.flat(kind), "o", ms=3, alpha=0.6, label=label)
        ax.set(xscale="log", yscale="log", xlabel="exact rise of the KD loss", title=name)
    axes[0][0].set_ylabel("estimate")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    finding = (
        f"Gauss-Newton scores of heads and FFN slices are {size:.2f} times the exact damage (median), in its unit; "
        "the other estimators have units of their own."
    )
    return FigureResult(fig, finding, data=pd.concat(units, ignore_index=True))


def motion_figure(share: Scores, latent_frames: int) -> FigureResult:
    """Share of each unit's damage that varies over time, from `exact_sensitivity`, in each block.

    An error drawn anew in every one of t latent frames has a share of 1 - 1/t.
    """
    fig, ax = plt.subplots()
    blocks = np.arange(len(share.blocks))
    for kind, colour in WIDTH_COLOURS.items():
        places = np.repeat(blocks, [len(values) for values in getattr(share, kind)])
        ax.plot(places, share.flat(kind), "o", ms=3, alpha=0.5, color=colour, label=kind)
    ax.plot(blocks, share.blocks, "-s", color=PALETTE["blue"], label="whole block")
    ax.axhline(1 - 1 / latent_frames, color="0.5", ls="--", lw=1, label="unrelated frames")
    ax.set(xlabel="block", ylabel="share of the damage\nthat varies over time", xticks=blocks)
    ax.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.15), fontsize=8)
    heads, ffn = share.flat("self_heads"), share.flat("ffn")
    finding = (
        f"On average {heads.mean():.0%} of a self-attention head's damage varies over time (single heads from "
        f"{heads.min():.0%} to {heads.max():.0%}), {share.flat('cross_heads').mean():.0%} of a cross-attention head's "
        f"and {ffn.mean():.0%} of an FFN slice's ({ffn.min():.0%} to {ffn.max():.0%})."
    )
    return FigureResult(fig, finding, data=unit_frame(share).rename(columns={"score": "motion share"}))


def span_figure(span: Sequence[np.ndarray], share: Scores, latent_frames: int) -> FigureResult:
    """Attention on other frames, from `other_frame_attention`, against the motion share of damage, one point a head.

    Attention without preference leaves its frame, one of t latent ones, with 1 - 1/t.
    """
    looks, breaks = np.concatenate(span), share.flat("self_heads")
    rho, low, high = rank_correlation(looks, breaks)
    near, far = np.percentile(looks, 10), np.percentile(looks, 90)
    blocks = np.repeat(np.arange(len(span)), [len(own) for own in span])
    fig, ax = plt.subplots()
    points = ax.scatter(looks, breaks, c=blocks, cmap="viridis", s=22)
    ax.axvline(1 - 1 / latent_frames, color="0.5", ls="--", lw=1, label="looks everywhere alike")
    ax.set(xlabel="attention on other latent frames", ylabel="share of the damage\nthat varies over time")
    ax.legend()
    fig.colorbar(points, ax=ax, label="block")
    finding = (
        f"A tenth of the heads put at most {near:.0%} of their attention on other latent frames, another tenth at "
        f"least {far:.0%} (without preference: {1 - 1 / latent_frames:.0%}). Rank correlation with the motion share of "
        f"their damage: {rho:.2f} [{low:.2f}, {high:.2f}]."
    )
    data = pd.DataFrame({"block": blocks, "attention on other frames": looks, "motion share": breaks})
    return FigureResult(fig, finding, paper_item="R1.5", data=data)


def stability_table(stability: pd.DataFrame) -> TableResult:
    """Which change of the calibration moves the ranking most and least; from `ranking_stability`."""
    ordered = stability.sort_values("rho heads and FFN")
    worst, best = ordered.iloc[0], ordered.iloc[-1]
    finding = (
        f"The ranking of heads and FFN slices changes most for '{worst['changed']}' (rho "
        f"{worst['rho heads and FFN']:.2f}) and least for '{best['changed']}' ({best['rho heads and FFN']:.2f})."
    )
    return TableResult(stability, finding)

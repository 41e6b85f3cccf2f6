"""Figures of quality tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mobivid_core.data.captions import ATTRIBUTES, caption, label_indices
from mobivid_core.measure.minivbench import Scores

if TYPE_CHECKING:
    from mobivid_core.measure.generation import Evaluation


def clip_titles(evaluation: Evaluation) -> list[str]:
    """Titles of the kept clips: the caption, whether its combination was held out of training, the judge's verdict."""
    labels = evaluation.labels[: len(evaluation.clips)]
    seen_classes = evaluation.measures.classes[: len(labels)]
    titles = []
    for label, seen, asked in zip(labels, seen_classes, label_indices(labels), strict=True):
        wrong = [name for name, ok in zip(ATTRIBUTES, (seen == asked).tolist(), strict=True) if not ok]
        held_out = " | held out" if label.unseen else ""
        titles.append(f"{caption(label)}{held_out} | judge: {'wrong ' + ', '.join(wrong) if wrong else 'right'}")
    return titles


def score_bars(rows: dict[str, Scores], names: Sequence[str]) -> Figure:
    """Bars with intervals of measures on [0, 1]: a group a measure, a bar a row title."""
    fig, ax = plt.subplots(figsize=(8, 3.6))
    width, places = 0.8 / len(rows), np.arange(len(names))
    for i, (title, scores) in enumerate(rows.items()):
        value, low, high = np.array([scores.values[name] for name in names]).T
        ax.bar(places + i * width, value, width, yerr=[value - low, high - value], label=title, error_kw={"lw": 1})
    ax.set_xticks(places + width * (len(rows) - 1) / 2, names)
    ax.set(ylabel="share of clips right", ylim=(0, 1.3), yticks=np.linspace(0, 1, 6))
    ax.legend(ncols=2, loc="upper center")
    return fig


def damage_map(effects: pd.DataFrame) -> Figure:
    """Every measure against every damage: change over the measure's own noise; frames mark what must move.

    A full frame is a change that was required and seen, a dotted one a change that was required and missed.
    """
    order = {name: list(dict.fromkeys(effects[name])) for name in ("damage", "measure")}
    wide = effects.pivot(index="damage", columns="measure", values="in_noise").loc[order["damage"], order["measure"]]
    fig, ax = plt.subplots(figsize=(8, 4.6))
    ax.imshow(wide.to_numpy(float).clip(-10, 10), cmap="PuOr", vmin=-10, vmax=10, aspect="auto")
    for row in effects.itertuples():
        x, y = order["measure"].index(row.measure), order["damage"].index(row.damage)
        text = f"{np.clip(row.in_noise, -99, 99):+.0f}" if abs(row.in_noise) >= 0.5 else ""
        ax.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if abs(row.in_noise) > 7 else "0.15")
        if row.expected:
            style = "-" if row.seen == "True" else ":"
            box = plt.Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, ec="0.1", lw=1.3, ls=style)
            ax.add_patch(box)
    ax.set_xticks(range(wide.shape[1]), [name.replace("_", " ") for name in wide], rotation=55, ha="right", fontsize=8)
    ax.set_yticks(range(wide.shape[0]), list(wide.index), fontsize=8)
    ax.grid(False)
    return fig


def sampling_curves(frame: pd.DataFrame, floor: float) -> Figure:
    """Quality against steps, from `curve.trace` at one guidance scale, a line a solver: share of right captions,
    distance, seconds a clip. Dashed: `floor`, the distance that VAE reconstructions have with as many clips."""
    fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.2))
    for solver, group in frame.groupby("solver", sort=False):
        steps = group["steps"].astype(float)
        for ax, name in zip(axes[:2], ("all_together", "distance"), strict=True):
            (line,) = ax.plot(steps, group[name], marker="o", label=solver)
            ax.fill_between(steps, group[f"{name}_low"], group[f"{name}_high"], alpha=0.12, color=line.get_color())
        axes[2].plot(steps, group["seconds_per_clip"], marker="o", label=solver)
    ticks = sorted(set(frame["steps"]))
    for ax, label in zip(axes, ("share with every attribute right", "Frechet distance", "seconds a clip"), strict=True):
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.set(xlabel="steps", ylabel=label, ylim=(0, None))
    axes[0].set_ylim(-0.02, 1.05)
    axes[1].axhline(floor, ls="--", color="0.4", lw=1, label="VAE reconstructions")
    axes[1].legend(fontsize=8)
    return fig


def guidance_curves(frame: pd.DataFrame, floor: float) -> Figure:
    """Quality against guidance, from `curve.trace`: shares of right captions and distance, intervals shaded.

    Dashed: `floor`, the distance that VAE reconstructions have with as many clips.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    where = frame["guidance"].astype(float)
    for name, ax in (("all_together", left), ("object_class", left), ("action", left), ("distance", right)):
        ax.plot(where, frame[name], marker="o", label=name)
        ax.fill_between(where, frame[f"{name}_low"], frame[f"{name}_high"], alpha=0.15)
    left.set(xlabel="guidance", ylabel="share of clips right", ylim=(-0.02, 1.05))
    right.set(xlabel="guidance", ylabel="distance", ylim=(0, None))
    left.legend()
    right.axhline(floor, ls="--", color="0.4", lw=1, label="VAE reconstructions")
    right.legend()
    return fig


def few_steps_curves(frame: pd.DataFrame, distance: str) -> Figure:
    """Distance and share of right clips against few steps, with and without guidance; the first row is dashed.

    Args:
        frame: From `few_steps_table`; the full sampler first.
        distance: Name of the distance's column.
    """
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    labels = {distance: "Frechet distance (lower is better)", "all_together": "clips with all attributes right (share)"}
    full, few = frame.iloc[0], frame.iloc[1:]
    ticks = sorted(set(few["steps"]))
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        for guided, rows in few.groupby("guided", sort=False):
            spread = [rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]
            kind = "guided" if guided == "yes" else "unguided"
            ax.errorbar(rows["steps"], rows[name], [s.clip(lower=0) for s in spread], marker="o", capsize=3, label=kind)
        ax.axhline(full[name], color="0.4", ls="--", label=f"{full['steps']} steps, guided")
        ax.set(xlabel="Euler steps", ylabel=label, xscale="log", xticks=ticks, xticklabels=ticks)
        ax.minorticks_off()
    axes[0].legend()
    return fig

"""Titles of clips that were judged, and quality against few steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mobivid_core.data.captions import ATTRIBUTES, caption, label_indices

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


def few_steps_curves(frame: pd.DataFrame, distance: str) -> Figure:
    """The column `distance`, and the share of right clips, against few steps with and without guidance.

    `frame` is from `few_steps_table`; its first row, the full sampler, is dashed.
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

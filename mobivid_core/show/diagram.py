"""The pipeline as a diagram, with the reader's place marked."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mobivid_core.errors import ParameterError
from mobivid_core.show.style import PALETTE

#: Notebook number -> centre and title of its box, and what comes out of it.
STATIONS = {
    "01": (0, 0.0, "VAE", "clip to few latents"),
    "02": (1, 0.0, "Server DiT", "the teacher, 40 steps"),
    "03": (2, 0.0, "Sensitivity", "damage of each part"),
    "04": (3, 0.0, "Tri-level pruning", "a smaller student"),
    "05": (3, -1.15, "Adversarial\ndistillation", "4 steps, no guidance"),
    "06": (2, -1.15, "Deployment", "Core ML, device model"),
    "07": (1, -1.15, "Scorecard", "claim, ours, verdict"),
}
_WIDTH, _HEIGHT = 0.8, 0.56


def pipeline_figure(here: str | None = None) -> Figure:
    """Draw the pipeline, with the notebook of a number, "01" to "07", marked; another is a `ParameterError`."""
    if here is not None and here not in STATIONS:
        raise ParameterError(f"no station {here!r} in the pipeline; there are {', '.join(STATIONS)}")
    figure, axes = plt.subplots(figsize=(8.4, 3.4))
    plain = {"facecolor": "#EEF3F7", "edgecolor": PALETTE["blue"], "linewidth": 1.0}
    marked = {"facecolor": PALETTE["orange"], "edgecolor": PALETTE["black"], "linewidth": 2.0}
    for number, (x, y, title, output) in STATIONS.items():
        corner, looks = (x - _WIDTH / 2, y - _HEIGHT / 2), marked if number == here else plain
        axes.add_patch(FancyBboxPatch(corner, _WIDTH, _HEIGHT, "round,pad=0.02,rounding_size=0.06", **looks))
        axes.text(x, y + 0.06, title, ha="center", va="center", fontsize=10, fontweight="bold")
        axes.text(x, y - 0.2, output, ha="center", va="center", fontsize=8)
        axes.text(x - _WIDTH / 2 + 0.02, y + 0.22, number, fontsize=7, va="center", color="0.35")
        if number == here:
            axes.text(x, y + _HEIGHT / 2 + 0.1, "you are here", ha="center", fontsize=9, color=PALETTE["vermillion"])
    for (x0, y0, *_), (x1, y1, *_) in itertools.pairwise(STATIONS.values()):
        gap_x, gap_y = (_WIDTH / 2 + 0.04) * (x1 - x0), (_HEIGHT / 2 + 0.04) * ((y1 > y0) - (y1 < y0))
        arrow = {"arrowstyle": "->", "lw": 1.4}
        axes.annotate("", (x1 - gap_x, y1 - gap_y), (x0 + gap_x, y0 + gap_y), arrowprops=arrow)
    axes.text(0, 0.62, "real video + captioned clips", ha="center", fontsize=8.5, style="italic")
    axes.annotate("", (0, 0.33), (0, 0.57), arrowprops={"arrowstyle": "->", "lw": 1.2})
    axes.set(xlim=(-0.5, 3.5), ylim=(-1.6, 0.75))
    axes.axis("off")
    return figure

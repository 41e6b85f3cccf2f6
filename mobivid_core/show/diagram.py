"""The pipeline as a diagram, with the reader's place marked."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mobivid_core.errors import ParameterError
from mobivid_core.show.style import PALETTE

#: Notebook number -> title of its box and what comes out of it.
STATIONS = {
    "01": ("VAE", "clip to few latents"),
    "02": ("Server DiT", "the teacher, 40 steps"),
    "03": ("Sensitivity", "damage of each part"),
    "04": ("Tri-level pruning", "a smaller student"),
    "05": ("Adversarial\ndistillation", "4 steps, no guidance"),
    "06": ("Deployment", "Core ML, device model"),
    "07": ("Scorecard", "claim, ours, verdict"),
}
_COLUMNS = 4
_WIDTH, _HEIGHT = 0.8, 0.56


def _place(index: int) -> tuple[float, float]:
    """Centre of a box: left to right in the first row, back from right to left in the second."""
    row, column = divmod(index, _COLUMNS)
    return (float(column) if row == 0 else float(_COLUMNS - 1 - column)), -1.15 * row


def _box(axes: Axes, number: str, place: tuple[float, float], highlighted: bool) -> None:
    title, output = STATIONS[number]
    x, y = place
    looks = {"facecolor": "#EEF3F7", "edgecolor": PALETTE["blue"], "linewidth": 1.0}
    if highlighted:
        looks = {"facecolor": PALETTE["orange"], "edgecolor": PALETTE["black"], "linewidth": 2.0}
    corner, shape = (x - _WIDTH / 2, y - _HEIGHT / 2), "round,pad=0.02,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch(corner, _WIDTH, _HEIGHT, boxstyle=shape, **looks))
    axes.text(x, y + 0.06, title, ha="center", va="center", fontsize=10, fontweight="bold")
    axes.text(x, y - 0.2, output, ha="center", va="center", fontsize=8)
    axes.text(x - _WIDTH / 2 + 0.02, y + 0.22, number, fontsize=7, va="center", color="0.35")
    if highlighted:
        axes.text(x, y + _HEIGHT / 2 + 0.1, "you are here", ha="center", fontsize=9, color=PALETTE["vermillion"])


def pipeline_figure(here: str | None = None) -> Figure:
    """Draw the pipeline, with the notebook of a number, "01" to "07", marked; another is a `ParameterError`."""
    if here is not None and here not in STATIONS:
        raise ParameterError(f"no station {here!r} in the pipeline; there are {', '.join(STATIONS)}")
    figure, axes = plt.subplots(figsize=(8.4, 3.4))
    places = {number: _place(i) for i, number in enumerate(STATIONS)}
    for number, place in places.items():
        _box(axes, number, place, number == here)
    numbers = list(STATIONS)
    for first, second in zip(numbers, numbers[1:], strict=False):
        (x0, y0), (x1, y1) = places[first], places[second]
        half_x, half_y = (_WIDTH / 2 + 0.04) * ((x1 > x0) - (x1 < x0)), (_HEIGHT / 2 + 0.04) * ((y1 > y0) - (y1 < y0))
        axes.annotate(
            "", (x1 - half_x, y1 - half_y), (x0 + half_x, y0 + half_y), arrowprops={"arrowstyle": "->", "lw": 1.4}
        )
    axes.text(0, 0.62, "real video + captioned clips", ha="center", fontsize=8.5, style="italic")
    axes.annotate("", (0, 0.33), (0, 0.57), arrowprops={"arrowstyle": "->", "lw": 1.2})
    axes.set(xlim=(-0.5, _COLUMNS - 0.5), ylim=(-1.6, 0.75))
    axes.axis("off")
    return figure

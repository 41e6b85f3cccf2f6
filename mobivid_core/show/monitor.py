"""A plot of the training loss that is redrawn while training goes on: `train(..., on_log=LossPlot())`.

Outside notebooks nothing is shown; `figure`, the static twin, works there too.
"""

from __future__ import annotations

import time

import pandas as pd
from matplotlib.figure import Figure

from mobivid_core.show.style import PALETTE


class LossPlot:
    """Callback for `train(on_log=...)` that draws at most every `every_s` seconds; `rows` is the log so far."""

    def __init__(self, every_s: float = 5.0) -> None:
        self.rows: list[dict[str, float]] = []
        self._every_s, self._drawn, self._handle = every_s, 0.0, None

    def __call__(self, row: dict[str, float]) -> None:
        """Take a row of the log, and if it is time, draw in place of the last drawing."""
        from IPython import get_ipython
        from IPython.display import display

        self.rows.append(row)
        if get_ipython() is None or time.perf_counter() - self._drawn < self._every_s:
            return
        self._drawn = time.perf_counter()
        if self._handle is None:
            self._handle = display(self.figure(), display_id=True)
        else:
            self._handle.update(self.figure())

    def figure(self) -> Figure:
        """Loss and its running mean against the step."""
        figure = Figure(figsize=(7.0, 3.0), layout="constrained")
        axes = figure.subplots()
        log = pd.DataFrame(self.rows)
        axes.plot(log["step"], log["loss"], color=PALETTE["sky"], linewidth=0.8, label="each logged step")
        axes.plot(log["step"], log["loss"].ewm(alpha=0.1).mean(), color=PALETTE["blue"], label="running mean")
        axes.set(title="training loss", xlabel="step", ylabel="loss")
        axes.legend(frameon=False)
        return figure

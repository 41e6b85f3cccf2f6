"""Live loss plot: takes the loop's rows, and has a static twin with the same numbers."""

import pytest
import torch

from mobivid_core.show.monitor import LossPlot
from mobivid_core.train.loop import TrainSettings, train


def test_plot_shows_the_rows_of_the_log():
    model, plot = torch.nn.Linear(2, 1), LossPlot(every_s=0.0)
    result = train(
        model,
        lambda s, g: model(torch.ones(1, 2)).square().sum(),
        TrainSettings(5, log_every=2),
        progress=False,
        on_log=plot,
    )
    assert plot.rows == result.log and [row["step"] for row in plot.rows] == [1, 3, 5]
    line = plot.figure().axes[0].lines[0]
    assert line.get_xydata().tolist() == [[row["step"], row["loss"]] for row in result.log]


def test_a_notebook_gets_one_drawing_that_is_updated(monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append("updated")

    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: shown.append("shown") or Handle())
    plot = LossPlot(every_s=0.0)
    for step in range(3):
        plot({"step": step, "loss": 1.0})
    assert shown == ["shown", "updated", "updated"]


@pytest.mark.parametrize(("losses", "means"), [([3.0] * 4, [3.0] * 4), ([1.0, 0.0], [1.0, 0.9 / 1.9])])
def test_the_running_mean_has_no_bias_at_the_start(losses, means):
    plot = LossPlot(every_s=1e9)
    plot.rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    assert plot.figure().axes[0].lines[1].get_ydata().tolist() == pytest.approx(means)

"""Notebook 02's findings say what their tables say, on numbers made up for it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mobivid_core.flow.toy import LineMixture
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.minivbench import SPACES
from mobivid_core.show import teacher_results as shown


@pytest.fixture(autouse=True)
def _close() -> object:
    yield
    plt.close("all")


def _interval(value: float, n: int = 9) -> Interval:
    return Interval(value, value - 0.01, value + 0.01, kind="95 % bootstrap", over="clips", n=n)


def test_one_step_lands_on_the_mean() -> None:
    data = shown.toy_flow(LineMixture(), (1, 40), seed=0, n=500).data.set_index("steps")
    assert data.loc[1, "spread"] < 0.05 < 1 < data.loc[40, "spread"]


def test_the_training_curve_says_how_early_the_loss_falls() -> None:
    log = pd.DataFrame({"step": range(1, 101), "loss": [2.0] + [1.0] * 99})
    finding = shown.training_curve(log, "run").finding
    assert "from 2.00 to 1.00" in finding and "100% of the fall" in finding


def test_wordings_are_averaged_by_kind() -> None:
    worded = pd.DataFrame({"trained": ["yes", "yes", "no"], "all_together": [1.0, 0.8, 0.5], "n": 32})
    assert "90% with trained wordings and in 50% with unseen" in shown.wordings_table(worded).finding


def test_gaps_and_diversity_keep_their_columns() -> None:
    found = shown.beyond_table(_interval(0.1), _interval(0.2), _interval(0.9, n=6), clips=256, captions=32)
    assert list(found.frame.columns) == ["measure", "value", "low", "high", "n"] and list(found.frame.n) == [256, 32, 6]
    assert "+0.10" in found.finding and "+0.20" in found.finding and "0.90 times" in found.finding


def test_guidance_and_steps_quote_the_best_point() -> None:
    names = ("all_together", "object_class", "action", "distance")
    frame = pd.DataFrame(
        {"solver": "euler", "steps": 8, "n": 32, "guidance": [1.0, 3.0], "calls": 8, "seconds_per_clip": 1.0}
    )
    for name in names:
        frame[name], frame[f"{name}_low"], frame[f"{name}_high"] = [0.2, 0.7], [0.1, 0.6], [0.3, 0.8]
    finding = shown.guidance_figure(frame, floor=0.1).finding
    assert "guidance 3 (70%)" in finding and "20% without" in finding
    steps = frame.assign(guidance=3.0, steps=[4, 8])
    assert "euler in 8 steps" in shown.steps_figure(steps, 0.1, SPACES["judge"], "3").finding


def test_bars_are_counted() -> None:
    values = {key: _interval(0.0 if not bar.at_least else 0.99) for key, bar in shown.TEACHER_BARS.items()}
    values["color"] = _interval(0.5)
    assert shown.teacher_bars(values, 9, "40 steps", "a space").finding.startswith("9 of 10 bars")


def test_the_paper_keeps_its_own_column() -> None:
    found = shown.paper_table(1_500_000, 0.8, 40)
    assert list(found.frame.columns) == ["claim", "value", "unit", "evidence", "ours"]
    assert found.frame.ours.iloc[0].startswith("1.50 M")

"""Figures draw what they are given; the stability table compares what it says."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mobivid_core.prune.planner import Targets, plan_for_targets
from mobivid_core.prune.refit import RefitReport
from mobivid_core.sensitivity.estimators import random_scores
from mobivid_core.sensitivity.stability import ranking_stability
from mobivid_core.show.pruning_figures import heat_map, kept_widths, size_against_loss, unit_frame
from mobivid_core.show.pruning_tables import refit_figure
from mobivid_core.show.sensitivity_results import DRAWN, estimates_figure, motion_figure

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_figures_of_scores_show_every_unit_of_uneven_models(teacher) -> None:
    scores = random_scores(teacher.sizes)
    units = sum(len(scores.flat(kind)) for kind in ("blocks", "widths"))
    assert len(unit_frame(scores)) == units
    images = [ax.images[0].get_array() for ax in heat_map(scores, "score").axes[:4]]
    assert sum(int(np.isfinite(np.ma.filled(image, np.nan)).sum()) for image in images) == units
    estimates = estimates_figure(scores, dict.fromkeys(DRAWN, scores)).fig
    assert [sum(len(line.get_xdata()) for line in axes.lines) for axes in estimates.axes] == [units] * len(DRAWN)
    assert motion_figure(scores, 3).fig.axes[0].get_xlabel() == "block"


def test_figures_of_plans_and_arms(teacher) -> None:
    plan = plan_for_targets(random_scores(teacher.sizes), teacher.sizes, Targets(2, 2, 16))
    bars = kept_widths({"a": plan, "b": plan}).axes[0].patches
    assert len(bars) == 3 * 2  # heads, heads, neurons of two kept blocks
    report = RefitReport([f"blocks.0.{n}" for n in ("attn1", "attn2", "ffn")] + ["proj_out"], [1.0] * 4, [0.5] * 4)
    assert refit_figure(report, np.ones(2), np.ones(2)).fig.axes[0].get_yscale() == "log"
    losses = {"mild: block-only": 0.1, "block-only": 0.4, "halfway: block-only": 0.2, "no refit: block-only": 0.9}
    table = pd.DataFrame({"arm": list(losses), "share": [0.8, 0.5, 0.65, 0.5], "KD recovered": list(losses.values())})
    axes = size_against_loss(table.assign(low=0.05, high=1.0)).axes[0]
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    assert list(drawn[0].get_xdata()) == [0.5, 0.65, 0.8]  # one arm at three budgets is one line
    assert list(drawn[0].get_ydata()) == [0.4, 0.2, 0.1]  # without the arm that had no refit
    assert [text.get_text() for text in axes.texts] == ["block-only"]


def test_ranking_stability_of_identical_halves_is_high(teacher, calibration) -> None:
    table = ranking_stability(teacher, calibration, probes=4, slices=4).set_index("changed")
    assert table.loc["other probes, same clips", "samples"] == "48 / 48"
    assert table.loc["an eighth of the clips", "samples"] == "48 / 6"
    # the same clips under other probes differ by sampling error only
    assert table.loc["other probes, same clips", "rho heads and FFN"] > 0.9

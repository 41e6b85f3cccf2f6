"""Notebook 03's findings say what their tables say, on scores whose order is known."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mobivid_core.sensitivity.scores import Scores
from mobivid_core.show import sensitivity_results as shown


def _scores(seed: int = 0, blocks: int = 4) -> Scores:
    drawn = np.random.default_rng(seed)
    parts = {
        kind: tuple(drawn.uniform(0.1, 1, 4) for _ in range(blocks)) for kind in ("self_heads", "cross_heads", "ffn")
    }
    return Scores(np.array([1.0, 2.0, 5.0, 10.0][:blocks]), **parts, estimator="exact", passes=100, seconds=20.0)


@pytest.fixture(autouse=True)
def _close() -> object:
    yield
    plt.close("all")


def test_the_estimator_table_ranks_against_exact_removal() -> None:
    exact = _scores()
    twice = replace(
        exact,
        **{k: tuple(2 * u for u in getattr(exact, k)) for k in ("self_heads", "cross_heads", "ffn")},
        seconds=2.0,
    )
    reverse = replace(exact, blocks=-exact.blocks)
    found = shown.estimator_table(exact, {shown.OURS: twice, "other": reverse}, influence=exact.blocks)
    table = found.frame.set_index("estimator")
    assert table.loc[shown.OURS, "rho widths"] == pytest.approx(1)
    assert table.loc["other", "rho blocks"] == pytest.approx(-1)
    assert table.loc["block influence (1 - cos)", "rho blocks"] == pytest.approx(1)
    assert "in 1/10 of its time" in found.finding
    assert list(found.frame.columns) == [
        "estimator", "forward passes", "seconds", "rho widths", "rho blocks", "rho self_heads", "rho cross_heads",
        "rho ffn", "time / exact",
    ]  # fmt: skip


def test_estimates_are_compared_in_size() -> None:
    exact = _scores()
    half = replace(exact, **{k: tuple(u / 2 for u in getattr(exact, k)) for k in ("self_heads", "cross_heads", "ffn")})
    found = shown.estimates_figure(exact, {name: half for name in shown.DRAWN})
    assert "0.50 times the exact damage" in found.finding
    assert set(found.data["estimator"]) == {"exact", *shown.DRAWN}


def test_the_map_and_the_motion_figure_quote_extremes() -> None:
    exact = _scores()
    assert "10 times as much" in shown.damage_map(exact).finding
    motion = shown.motion_figure(exact, latent_frames=3)
    heads = exact.flat("self_heads")
    assert f"from {heads.min():.0%} to {heads.max():.0%}" in motion.finding
    assert "motion share" in motion.data


def test_the_span_figure_correlates_heads() -> None:
    share = _scores()
    found = shown.span_figure(share.self_heads, share, latent_frames=4)
    assert "damage: 1.00" in found.finding and "without preference: 75%" in found.finding
    assert len(found.data) == 16


def test_stability_names_the_worst_and_the_best_change() -> None:
    frame = pd.DataFrame({"changed": ["a", "b", "c"], "rho heads and FFN": [0.9, 0.4, 0.99]})
    found = shown.stability_table(frame).finding
    assert "most for 'b' (rho 0.40)" in found and "least for 'c' (0.99)" in found

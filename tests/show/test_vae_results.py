"""Notebook 01's findings say what their tables say, on numbers made up for it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core.data.render import label_of
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.minivbench import QUALITY
from mobivid_core.measure.subscores import READ
from mobivid_core.show import vae_figures, vae_tables

SWEEP = pd.DataFrame(
    {
        "sweep": ["equal floats"] * 2 + ["equal channels"] * 2,
        "ratio": ["4x8x8", "8x32x32"] * 2,
        "channels": [4, 128, 16, 16],
        "tokens": [1280, 48, 1280, 48],
        "latent floats": [5120, 6144, 20480, 768],
        "film PSNR, dB": [30.0, 31.0, 36.0, 26.0],
    }
)


@pytest.fixture(autouse=True)
def _close() -> object:
    yield
    plt.close("all")


def _measured(*psnr_db: float, change: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"psnr_db": psnr_db, "motion_error": 0.1, "ssim": 0.9, "ms_ssim": 0.9, "change_per_frame": change}
    )


def test_costs_are_ratios_of_the_first_and_the_last_row() -> None:
    cost = pd.DataFrame({"ratio": ["a", "b"], "tokens": [3000, 100], "server TFLOP per forward": [500.0, 10.0]})
    assert "30.0 times and the cost of a forward pass 50 times" in vae_tables.cost_table(cost).finding


def test_the_sweeps_are_told_apart() -> None:
    finding = vae_tables.sweep_result(SWEEP).finding
    assert "within 1.0 dB" in finding and "(best 8x32x32)" in finding and "span 10.0 dB" in finding
    curves = pd.DataFrame({"ratio": ["4x8x8"] * 2, "pixels_per_float": [10, 100], "psnr_db": [30, 20]})
    told = vae_figures.rate_distortion_figure(curves, SWEEP, (3, 17, 128, 128)).finding
    assert "from 48 to 1280 tokens" in told and "by -1.0 dB at equal floats and by +10.0 dB" in told


def test_prices_name_the_front() -> None:
    priced = SWEEP[:2][["ratio", "film PSNR, dB"]].assign(
        **{"miniature denoiser, ms": [80.0, 8.0], "server TFLOP per forward (paper scale, derived)": [60.0, 3.0],
           "on the front": [False, True]}
    )  # fmt: skip
    assert vae_tables.priced_table(priced).finding.endswith(
        "10 times faster; on the front of quality against time: 8x32x32."
    )
    assert "10 times apart" in vae_figures.quality_cost_figure(priced).finding


def test_the_lighter_decoder_is_counted() -> None:
    found = vae_tables.decoder_table((7, 12, 16), 49 * 384 * 512)
    light, heavy = found.frame["kFLOP per pixel"]
    assert light < heavy and f"{heavy / light:.1f} times as many" in found.finding


def test_gains_are_paired() -> None:
    on_film = {
        vae_tables.PCA: _measured(20, 30), vae_tables.LTX: _measured(10, 20), vae_tables.LTX_PCA: _measured(20.5, 30.5),
        vae_tables.SHORT: _measured(22, 32), vae_tables.MAIN: _measured(25, 35),
    }  # fmt: skip
    finding = vae_tables.quality_table(on_film).finding
    assert "30.0 dB, +5.00 dB against PCA" in finding and "+12.0 dB over the LTX-style" in finding
    assert "+1.50 dB [+1.50, +1.50]" in finding


def test_freezing_and_speeding_up_are_differences_of_the_same_moments() -> None:
    by_speed = {"0x": _measured(40, 30), "1x": _measured(30, 20, change=1.0), "4x": _measured(25, 15, change=4.0)}
    assert "gains 10.0 dB" in vae_tables.speed_table(by_speed).finding
    assert "10% of the squared error" in vae_tables.speed_table(by_speed).finding
    assert "lose 15.0 dB" in vae_figures.motion_cost_figure(by_speed).finding
    ratios = pd.DataFrame({"ratio": ["a", "b"], "cost of 4x, dB": [2.0, 5.0]})
    assert "lose 5.0 dB at b and 2.0 dB at a" in vae_tables.motion_by_ratio_table(ratios).finding


def test_regions_are_measured_by_the_masks() -> None:
    clips, masks = torch.zeros(2, 3, 2, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.bool)
    masks[..., :4] = True
    rebuilt = torch.where(masks[:, None], 0.1, 0.01).expand_as(clips)
    found = vae_tables.regions_table(rebuilt, clips, masks, [label_of("test", i) for i in range(2)])
    assert "20.0 dB below" in found.finding
    assert np.allclose(found.frame.background - found.frame.object, 20, atol=1e-3)


def _scores() -> pd.DataFrame:
    rows = {"version": ["original", "PCA z2", "PCA z8", "main VAE"], "psnr_db": [np.nan, 20.0, 30.0, 33.0]}
    frame = pd.DataFrame(rows | {name: [1.0, 0.5, 1.0, 1.0] for name in (*READ, *QUALITY)})
    frame["colour"] = [1.0, 0.9, 1.0, 1.0]
    return frame


def test_sub_scores_say_what_they_need() -> None:
    scores = _scores()
    assert "From 20.0 to 33.0 dB" in vae_tables.subscores_table(scores).finding
    assert "from 50% to 100%" in vae_tables.subscores_table(scores).finding
    assert "colour 25.0 dB" in vae_tables.psnr_needed_table(scores).finding
    assert "'colour' keeps 90%" in vae_figures.subscores_figure(scores).finding


def test_the_best_generator_is_named() -> None:
    per_vae = pd.DataFrame({"VAE": ["a", "b", "c"], "tokens": [48, 48, 1280], "steps": [90, 90, 3]})
    per_vae["PSNR, dB"], per_vae["frechet"] = [20.0, 25.0, 30.0], [5.0, 7.0, 9.0]
    per_vae["frechet_low"], per_vae["frechet_high"] = per_vae.frechet - 1, per_vae.frechet + 1
    finding = vae_tables.generation_table(per_vae, floor=2.0, gain="A gain.").finding
    assert finding.startswith("a generates closest")
    assert "-1.00 over 3 VAEs, -1.00 over 2 of equal tokens. A gain." in finding
    assert vae_figures.generation_figure(per_vae).data is per_vae


def test_an_effect_before_its_cause_would_be_reported() -> None:
    encoded = torch.zeros(17, 3)
    encoded[9, 2], encoded[0, 0] = 1.0, 1.0
    assert "largest change 0)" in vae_figures.causality_figure(encoded, encoded.T).finding
    encoded[9, 0] = 0.5
    assert "largest change 0.5)" in vae_figures.causality_figure(encoded, encoded.T).finding


def test_only_the_ratio_is_the_paper_s() -> None:
    psnr_db = Interval(27.0, 26, 28, kind="95 % bootstrap", over="clips", n=9)
    frame = vae_tables.paper_table((8, 32, 32), 1344, psnr_db, 42.0).frame
    assert frame["paper"].notna().tolist() == [True, False, False, False]

"""Findings of notebook 06 follow their tables: bars are judged, covered and missed anchors told apart."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

pytest.importorskip("coremltools")
from mobivid_core.measure.intervals import Interval  # noqa: E402
from mobivid_core.models.counts import latent_grid  # noqa: E402
from mobivid_core.phone import efficiency, references  # noqa: E402
from mobivid_core.show import phone_story, phone_verdict  # noqa: E402


def _cost(mixed_db: float, mixed_right: float) -> pd.DataFrame:
    rows = [(16, 5.0, 60.0, 50.0, 1.0), (4, 1.5, 20.0, 15.0, 0.9), ("mixed", 1.5, mixed_db, 15.0, mixed_right)]
    columns = ["bits", "MB", "PSNR to torch, median (dB)", "worst clip (dB)", "all attributes right"]
    return pd.DataFrame(rows, columns=columns).assign(clips=16)


@pytest.mark.parametrize(
    ("decibels", "right", "verb"),
    [(23.0, 1.0, "reach"), (22.9, 1.0, "miss"), (25.0, 0.97, "miss"), (25.0, 0.985, "reach")],
)
def test_mixed_bits_meet_both_bars_or_miss(decibels: float, right: float, verb: str) -> None:
    gain = Interval(decibels - 20, 1, 5, kind="95 % bootstrap", over="pairs of clips", n=16)
    finding = phone_story.weights(_cost(decibels, right), gain, 4.0, 2.44).finding
    assert f"they {verb} the bars" in finding
    assert f"are {decibels - 20:+.1f} dB nearer" in finding and "predict +2.4 dB" in finding


def test_the_left_out_transformer_is_called_covered_or_missed() -> None:
    held = efficiency.leave_one_out("workload").set_index("chip").loc["A18 Pro"]
    finding = phone_verdict.left_out(efficiency.left_out_errors()).finding
    assert ("covers" if held["low"] <= held["efficiency"] <= held["high"] else "misses") in finding
    assert f"{100 * held['efficiency']:.1f} %" in finding


GRID = (7, 12, 16)


def test_table_one_gives_the_servers_own_speed_back_and_guides_its_rivals() -> None:
    share = phone_verdict.implied_share(GRID, 49, 40)
    # 40 guided steps of 4.896 TFLOP, 6.4 of 49 frames a second, on 312 TFLOP/s
    assert share == pytest.approx(80 * 4.896 * 6.4 / 49 / 312, rel=1e-3)
    found = phone_verdict.table_one(GRID, 49, (40, 4), (512, 384), (1.0, 8.0), share, efficiency.fit_efficiency())
    table = found.frame.set_index("model")
    assert table.loc["Ours-Server", "A100 predicted"] == pytest.approx(6.4, rel=0.01)  # some products wait for memory
    rivals = {"LTX": references.ltx_transformer_counts(GRID),
              "Wan2.1": references.wan_transformer_counts(latent_grid(49, 384, 512, (4, 8, 8)))}  # fmt: skip
    for name, counts in rivals.items():
        assert table.loc[name, "TFLOP a clip"] == pytest.approx(80 * counts.flops / 1e12)


@pytest.mark.parametrize(("low", "high", "place"), [(10, 20, "inside"), (16, 20, "outside"), (5, 14, "outside")])
def test_the_published_speed_lies_inside_both_ends_or_outside(low: float, high: float, place: str) -> None:
    speed = Interval(15.5, low, high, kind="80 % prediction", over="published workloads", n=3)
    row = {"device": "phone", "chip": "A18 Pro", "engine": "Neural Engine", "frames/s": 15.5, "low": 4, "high": 80}
    found = phone_verdict.rates(pd.DataFrame([row]), speed)
    plt.close(found.fig)
    assert f"the published 15 lies {place} an interval whose ends are {high / low:.0f}-fold apart" in found.finding

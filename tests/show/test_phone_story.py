"""Findings of notebook 06 follow their tables: bars are judged, covered and missed anchors told apart."""

import pandas as pd
import pytest

pytest.importorskip("coremltools")
from mobivid_core.measure.intervals import Interval  # noqa: E402
from mobivid_core.phone import efficiency  # noqa: E402
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

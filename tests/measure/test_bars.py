import pytest

from mobivid_core.measure.bars import TEACHER_BARS, Bar, bars_table, verdict
from mobivid_core.measure.intervals import Interval


@pytest.mark.parametrize(
    ("interval", "at_least", "at_most"),
    [
        ((0.9, 0.8, 1.0), "met", "missed"),
        ((0.8, 0.7, 0.9), "met, within chance", "missed, within chance"),
        ((0.7, 0.6, 0.8), "missed, within chance", "met, within chance"),
        ((0.6, 0.5, 0.7), "missed", "met"),
    ],
)
def test_verdicts_follow_value_and_interval(interval, at_least: str, at_most: str) -> None:
    assert verdict(Bar("x", 0.75), interval) == at_least
    assert verdict(Bar("x", 0.75, at_least=False), interval) == at_most


def test_a_value_on_the_bar_clears_it() -> None:
    assert verdict(Bar("x", 0.75), (0.75, 0.75, 0.75)) == "met"
    assert verdict(Bar("x", 2.0, at_least=False), (2.0, 2.0, 2.0)) == "met"


def test_the_table_has_every_bar_beside_its_value() -> None:
    over = {"kind": "95 % Wilson", "over": "clips", "n": 256}
    values = dict.fromkeys(TEACHER_BARS, Interval(0.94, 0.9, 0.97, **over))
    values |= {"unseen_gap": Interval(0.3, 0.2, 0.4, **over), "other": Interval(0, 0, 0, **over)}
    frame = bars_table(values).set_index("measure")
    assert len(frame) == len(TEACHER_BARS)
    assert frame.loc["shape right", ["interval", "n"]].tolist() == ["95 % Wilson, clips", 256]
    assert frame.loc["every attribute right", "bar"] == "at least 0.95"
    assert frame.loc["trained minus held-out combinations", "verdict"] == "missed"
    assert frame.loc["shape right", "verdict"] == "missed, within chance"

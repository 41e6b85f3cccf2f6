"""The budget tables reproduce the reconstruction's arithmetic (shared/paper/reconstruction.md, class derived)."""

from __future__ import annotations

import pytest

from mobivid_core.models.config import MOBILE, SERVER
from mobivid_core.prune.arithmetic import blocks_nearest, cut_table, matched_table
from mobivid_core.prune.timing import time_ratio

HALF_DIGIT = 6e-4  # the reconstruction prints three decimals of a billion


def test_cut_table_matches_the_reconstruction() -> None:
    table = cut_table(SERVER, MOBILE).set_index("levels")
    expected = {"blocks": 1.379, "heads": 1.564, "ffn": 1.682, "blocks + heads + ffn": 0.960}
    for levels, billions in expected.items():
        assert table.loc[levels, "parameters, B"] == pytest.approx(billions, abs=HALF_DIGIT)
    assert table.loc["heads", "floor, B"] == pytest.approx(0.976, abs=HALF_DIGIT)
    assert table.loc["ffn", "floor, B"] == pytest.approx(0.977, abs=HALF_DIGIT)
    assert table["reaches the mobile size"].tolist() == ["yes", "no", "no", "yes"]


def test_matched_arms_match_the_reconstruction() -> None:
    table = matched_table(SERVER, [1.75e9, 1.50e9, 1.25e9])
    assert table["blocks alone"].tolist() == [26, 22, 18]
    assert table["heads alone"].tolist() == [26, 18, 9]
    assert table["ffn alone"].tolist() == [6784, 4608, 2432]
    assert table["ffn alone, B"].tolist() == pytest.approx([1.755, 1.505, 1.256], abs=HALF_DIGIT)


def test_block_only_needs_13_or_14_blocks_at_the_mobile_size() -> None:
    assert blocks_nearest(SERVER, 959_697_024) in (13, 14)


def test_time_ratio_of_a_model_with_itself_is_near_one(teacher, calibration) -> None:
    middle, low, high = time_ratio(teacher, teacher, calibration, repeats=5)
    assert low <= middle <= high and 0.2 < middle < 5  # not a benchmark: a busy machine is allowed

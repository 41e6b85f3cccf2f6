"""Chance beside the ranking, and the plan's worth apart from the refit's."""

from __future__ import annotations

import numpy as np

from mobivid_core.measure import intervals
from mobivid_core.models.config import SMOKE_MOBILE, SMOKE_SERVER
from mobivid_core.prune.arms import Arm, ArmResult, plan_and_repair, random_units
from mobivid_core.prune.planner import Targets, uniform_plan

PLAN = uniform_plan(SMOKE_SERVER, Targets.of(SMOKE_MOBILE))


def test_random_units_keep_blocks_and_widths() -> None:
    drawn = random_units(PLAN, seed=1)
    assert drawn.keep_blocks == PLAN.keep_blocks and drawn.parameters == PLAN.parameters
    assert [len(units) for units in drawn.ffn] == [len(units) for units in PLAN.ffn]
    assert drawn.ffn != PLAN.ffn and drawn == random_units(PLAN, seed=1) != random_units(PLAN, seed=2)


def _result(name: str, level: float) -> ArmResult:
    errors = level * np.linspace(0.9, 1.1, 20)
    return ArmResult(Arm(name, PLAN), errors, errors, errors, 0.0, None)


def test_each_half_is_held_against_our_plan_with_the_same_repair() -> None:
    results = [_result("ours", 0.1), _result("chance", 0.11), _result("no refit: ours", 0.2),
               _result("no refit: chance", 0.4)]  # fmt: skip
    table = plan_and_repair(results, ("ours", "chance"), "ours").set_index(["refit", "plan"])
    assert table.loc[("no", "chance"), "over ours"] == np.float64(2.0)
    assert abs(table.loc[("yes", "chance"), "over ours"] - 1.1) < 1e-12
    assert table.loc[("yes", "ours"), ["over ours", "low", "high"]].tolist() == [1, 1, 1]
    assert set(table["n"]) == {20} and intervals.ratio([1.0], [1.0]).over in table["interval"].iloc[1]

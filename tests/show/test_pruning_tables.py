"""The sentence under a table of notebook 04 says what its numbers say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mobivid_core.measure.intervals import Interval
from mobivid_core.models.config import MOBILE, SERVER, SMOKE_MOBILE, SMOKE_SERVER
from mobivid_core.prune.arms import Arm, ArmResult
from mobivid_core.prune.planner import Targets, plan_for_targets, uniform_plan
from mobivid_core.sensitivity.estimators import random_scores
from mobivid_core.show import pruning_tables as tables
from mobivid_core.show.pruning_tables import BLOCKS_ONLY, CHANCE, NO_KD, PAPERS_CUT, ArmsCompared

CUT = plan_for_targets(random_scores(SMOKE_SERVER), SMOKE_SERVER, Targets.of(SMOKE_MOBILE))
REMOVALS = [(block, 0.1) for block in range(SMOKE_SERVER.blocks - 1)]


def _arms() -> list[Arm]:
    scores = random_scores(SMOKE_SERVER)
    whole = uniform_plan(SMOKE_SERVER, Targets.of(SMOKE_SERVER)).parameters
    return tables.comparison_arms({PAPERS_CUT: CUT}, scores, scores, scores, REMOVALS, 0.9 * whole, 0)


def _results(levels: dict[str, float]) -> list[ArmResult]:
    found = []
    for arm in _arms():
        errors = levels.get(arm.name, 0.5) * np.linspace(0.9, 1.1, 16)
        found.append(ArmResult(arm, errors, errors, errors, 0.0, None))
    return found


def test_three_plans_run_with_and_without_the_refit_and_chance_has_our_widths() -> None:
    arms = {arm.name: arm for arm in _arms()}
    for name in tables.PLANS:
        assert arms[name].refit and not arms[f"no refit: {name}"].refit
        assert arms[name].plan == arms[f"no refit: {name}"].plan
    assert arms[CHANCE].plan.parameters == CUT.parameters and arms[CHANCE].plan.ffn != CUT.ffn
    assert {"mild: head-only", "mild: FFN-only", "mild: block-only", NO_KD} <= set(arms)


def test_the_finding_separates_plan_and_repair() -> None:
    levels = {PAPERS_CUT: 0.1, CHANCE: 0.12, BLOCKS_ONLY: 0.2, f"no refit: {PAPERS_CUT}": 0.4,
              f"no refit: {CHANCE}": 0.8, f"no refit: {BLOCKS_ONLY}": 0.6}  # fmt: skip
    compared = ArmsCompared(_results(levels), 1e6)
    told = compared.plan_or_repair().finding
    assert "without the refit random units have 2.00 and block-only 1.50 times" in told
    assert "with the refit random units have 1.20 and block-only 2.00 times" in told
    assert "takes the paper's cut to 0.25 of its loss" in told
    small = {"mild: head-only": 0.01, "halfway: block-only": 0.02}  # larger models: not of the paper's size
    assert ArmsCompared(_results(levels | small), 1e6).best == PAPERS_CUT
    assert compared.best == PAPERS_CUT and compared.over(PAPERS_CUT, BLOCKS_ONLY).value == pytest.approx(0.5)
    told = compared.arms(7).finding
    assert "after 7 equal steps" in told and "0.50 of block-only's" in told and "one seed of recovery" in told


def test_floors_and_ratios() -> None:
    assert "Only blocks alone" in tables.floors_table(SERVER, MOBILE).finding
    seconds = Interval(0.6, 0.5, 0.7, kind="96 % of the median", over="repeats in one run", n=10)
    found = tables.ratios_table(CUT, 0.5, seconds, 0.5)
    row = found.frame.set_index("ratio student / teacher").loc["time"]
    assert row[["value", "n", "interval"]].tolist() == [0.6, 10, "96 % of the median, repeats in one run"]
    assert "to 0.50 of the teacher's, measured time to 0.60" in found.finding


def test_what_recovery_learns_from_names_best_and_worst() -> None:
    frame = pd.DataFrame({"recovery": ["a", "b"], "KD recovered": [0.2, 0.1]})
    told = tables.lessons_table(frame, 5, 8).finding
    assert "'b' is lowest, at 0.100" in told and "'a', reaches 0.200" in told

"""Plans are not made from what is no number: scores, budgets, multiples, targets and blocks are checked first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobivid_core.errors import BudgetError, ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets, plan_for_budget, plan_for_targets, uniform_plan
from mobivid_core.sensitivity.scores import UNIT_KINDS, Scores

SIZES = DiTConfig.uniform(blocks=3, heads=2, ffn=8, hidden=16, head_dim=8, in_channels=4, text_dim=12)
WHOLE = PruningPlan.keep_all(SIZES).parameters


def _scores() -> Scores:
    rng = np.random.default_rng(0)
    parts = {
        kind: tuple(rng.random(n) for _ in range(3)) for kind, n in (("self_heads", 2), ("cross_heads", 2), ("ffn", 8))
    }
    return Scores(blocks=rng.random(3), **parts, estimator="random")


@pytest.mark.parametrize("kind", UNIT_KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_refused(kind: str, value: float) -> None:
    scores = _scores()
    if kind == "blocks":
        scores = replace(scores, blocks=np.array([1.0, value, 2.0]))
    else:
        first, *others = getattr(scores, kind)
        scores = replace(scores, **{kind: (np.array([value, *first[1:]]), *others)})
    for plan in (
        lambda: plan_for_budget(scores, SIZES, 0.8 * WHOLE),
        lambda: plan_for_targets(scores, SIZES, Targets(2, 1, 4)),
    ):
        with pytest.raises(ParameterError, match=f"1 of .* {kind} scores of 'random' are not finite"):
            plan()


@pytest.mark.parametrize("budget", [float("nan"), float("inf"), -float("inf"), "many", None, True, 0, -5])
def test_budgets_that_are_no_numbers_are_refused(budget: object) -> None:
    with pytest.raises(BudgetError, match="budget"):
        plan_for_budget(_scores(), SIZES, budget)


@pytest.mark.parametrize("multiple", [0, -4, 2.0, "8", None, True])
def test_a_multiple_is_a_count(multiple: object) -> None:
    with pytest.raises(ParameterError, match="multiple must be a whole number above zero"):
        plan_for_budget(_scores(), SIZES, 0.8 * WHOLE, multiple=multiple)
    assert plan_for_budget(_scores(), SIZES, 0.8 * WHOLE, multiple=np.int64(4)).parameters <= 0.8 * WHOLE


@pytest.mark.parametrize("blocks", [[], [0, 0], [3], [-1], [0.5]])
def test_kept_blocks_are_blocks_of_the_model(blocks: list) -> None:
    with pytest.raises(ParameterError, match="keep_blocks must be distinct blocks of 0..2"):
        plan_for_budget(_scores(), SIZES, 0.6 * WHOLE, keep_blocks=blocks)
    with pytest.raises(ParameterError, match="keep_blocks"):
        plan_for_targets(_scores(), SIZES, Targets(2, 1, 4), keep_blocks=blocks)


@pytest.mark.parametrize(
    "targets", [Targets(0, 1, 4), Targets(2, 3, 4), Targets(2, 1, float("nan")), Targets(2, 1.5, 4)]
)
def test_targets_are_counts_within_the_model(targets: Targets) -> None:
    with pytest.raises(BudgetError, match="is impossible: the model allows 1 to"):
        uniform_plan(SIZES, targets)

"""Plans: budgets, floors, JSON, scaling to the paper's model."""

from __future__ import annotations

import numpy as np
import pytest

from mobivid_core.errors import BudgetError, CheckpointError, ParameterError
from mobivid_core.measure.intervals import rank_correlation
from mobivid_core.models.config import MINI_MOBILE, MINI_SERVER, MOBILE, SERVER, SMOKE_SERVER
from mobivid_core.prune.costs import flop_cost, parameter_cost
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets, floor_cost, plan_for_budget, plan_for_targets, uniform_plan
from mobivid_core.sensitivity.estimators import random_scores
from mobivid_core.sensitivity.scores import Scores

WHOLE = parameter_cost(MINI_SERVER).total(MINI_SERVER)


def test_json_round_trip(tmp_path) -> None:
    plan = plan_for_budget(random_scores(MINI_SERVER), MINI_SERVER, 0.5 * WHOLE)
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan


def test_bad_plan_files_say_what_is_wrong(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="notebook 04"):
        PruningPlan.load(tmp_path / "none.json")
    with pytest.raises(CheckpointError, match="not a pruning plan"):
        PruningPlan.from_json("{}")
    with pytest.raises(ParameterError, match="ascending"):
        PruningPlan(SMOKE_SERVER, (2, 1), ((0,),) * 2, ((0,),) * 2, ((0,),) * 2)


@pytest.mark.parametrize("levels", [("blocks", "heads", "ffn"), ("blocks",), ("heads",), ("ffn",), ("heads", "ffn")])
def test_budget_is_met_and_nearly_spent(levels: tuple[str, ...]) -> None:
    budget = 0.8 * WHOLE
    plan = plan_for_budget(random_scores(MINI_SERVER), MINI_SERVER, budget, levels)
    cost = parameter_cost(MINI_SERVER)
    # the last unit that went may have been the largest kind that may go
    slack = cost.block_total(8, 8, 512) if "blocks" in levels else cost.self_head
    assert budget - slack < plan.parameters <= budget
    if "blocks" not in levels:
        assert plan.keep_blocks == tuple(range(14))


def test_smaller_budgets_never_cost_more_and_keep_less_score() -> None:
    scores = random_scores(MINI_SERVER)
    plans = [plan_for_budget(scores, MINI_SERVER, share * WHOLE, ("heads", "ffn")) for share in (0.9, 0.7, 0.5)]
    kept = [set((b, n) for b, units in enumerate(p.ffn) for n in units) for p in plans]
    assert plans[0].parameters > plans[1].parameters > plans[2].parameters
    assert kept[2] < kept[1] < kept[0]  # greedy removal is nested


def test_greedy_removes_the_least_score_per_parameter() -> None:
    scores = random_scores(MINI_SERVER)
    plan = plan_for_budget(scores, MINI_SERVER, 0.8 * WHOLE, ("ffn",))
    dropped = [v for b, s in enumerate(scores.ffn) for n, v in enumerate(s) if n not in set(plan.ffn[b])]
    kept = [v for b, s in enumerate(scores.ffn) for n, v in enumerate(s) if n in set(plan.ffn[b])]
    assert max(dropped) < min(kept)


def test_blocks_compete_with_units() -> None:
    scores = random_scores(MINI_SERVER)
    worthless = Scores(
        np.where(np.arange(14) == 5, 0.0, 1e9), scores.self_heads, scores.cross_heads, scores.ffn, "test"
    )
    plan = plan_for_budget(worthless, MINI_SERVER, 0.8 * WHOLE)
    assert plan.removed_blocks == (5,)


def test_rounding_to_multiples_and_other_costs() -> None:
    scores, cost = random_scores(MINI_SERVER), flop_cost(MINI_SERVER, 48, 24)
    plan = plan_for_budget(scores, MINI_SERVER, 0.6 * cost.total(MINI_SERVER), cost=cost, multiple=32)
    assert all(w % 32 == 0 for w in plan.sizes.ffn_widths)
    assert cost.total(plan.sizes) <= 0.6 * cost.total(MINI_SERVER)


def test_no_layer_is_emptied() -> None:
    budget = floor_cost(MINI_SERVER, ("heads", "ffn"))
    plan = plan_for_budget(random_scores(MINI_SERVER), MINI_SERVER, budget, ("heads", "ffn"))
    assert set(plan.sizes.self_heads) == set(plan.sizes.cross_heads) == set(plan.sizes.ffn_widths) == {1}


def test_impossible_budgets_name_the_floor() -> None:
    # Paper scale: no single width level reaches the mobile model's size (reconstruction.md: 0.976 B and 0.977 B).
    target = parameter_cost(MOBILE).total(MOBILE)
    for levels, floor in ((("heads",), 0.976e9), (("ffn",), 0.977e9)):
        computed = floor_cost(SERVER, levels, least=0)
        assert abs(computed - floor) < 1e6
        with pytest.raises(BudgetError, match=f"{levels[0]}.*floor.*{computed:,.0f}.*raise the budget"):
            plan_for_budget(random_scores(SERVER), SERVER, target, levels)
    with pytest.raises(BudgetError, match="nothing to prune"):
        plan_for_budget(random_scores(MINI_SERVER), MINI_SERVER, 2 * WHOLE)
    with pytest.raises(BudgetError, match="allows 1 to 8"):
        uniform_plan(MINI_SERVER, Targets(10, 9, 384))


def test_explicit_targets_reach_the_mobile_sizes() -> None:
    targets = Targets.of(MINI_MOBILE)
    plan = plan_for_targets(random_scores(MINI_SERVER), MINI_SERVER, targets)
    assert plan.sizes == MINI_MOBILE == uniform_plan(MINI_SERVER, targets).sizes
    spread = plan_for_targets(random_scores(MINI_SERVER), MINI_SERVER, targets, allocation="global")
    assert spread.parameters == plan.parameters and spread.sizes != MINI_MOBILE
    first = plan_for_targets(random_scores(MINI_SERVER), MINI_SERVER, targets, keep_blocks=range(10))
    assert first.keep_blocks == tuple(range(10))


def test_the_highest_scores_stay() -> None:
    scores = random_scores(MINI_SERVER)
    plan = plan_for_targets(scores, MINI_SERVER, Targets.of(MINI_MOBILE))
    gone = sorted(set(range(MINI_SERVER.blocks)) - set(plan.keep_blocks))
    assert scores.blocks[list(plan.keep_blocks)].min() > scores.blocks[gone].max()
    for b, heads, ffn in zip(plan.keep_blocks, plan.self_heads, plan.ffn, strict=True):
        for own, kept in ((scores.self_heads[b], heads), (scores.ffn[b], ffn)):
            assert np.delete(own, list(kept)).max() <= own[list(kept)].min()


def test_what_the_last_removal_frees_too_much_is_given_back() -> None:
    """Heads and blocks overshoot a budget by more than a neuron; removed neurons come back as far as it allows."""
    scores, cost = random_scores(MINI_SERVER), parameter_cost(MINI_SERVER)
    for share in np.linspace(0.5, 0.9, 21):
        plan = plan_for_budget(scores, MINI_SERVER, share * WHOLE)
        slack, whole = share * WHOLE - plan.parameters, all(len(ffn) == MINI_SERVER.ffn_widths[0] for ffn in plan.ffn)
        assert slack >= 0 and (whole or slack < cost.neuron), share


def test_scores_round_trip_and_check(tmp_path) -> None:
    scores = random_scores(SMOKE_SERVER)
    scores.save(tmp_path)
    again = Scores.load(tmp_path, "random")
    assert (
        all((again.flat(k) == scores.flat(k)).all() for k in ("blocks", "heads", "ffn")) and again.notes == scores.notes
    )
    with pytest.raises(ParameterError, match="do not fit"):
        scores.check(MINI_SERVER)
    with pytest.raises(CheckpointError, match="notebook 03"):
        Scores.load(tmp_path, "missing")


def test_rank_correlation_of_a_monotone_map_is_one() -> None:
    a = np.random.default_rng(0).random(40)
    assert rank_correlation(a, np.exp(a))[0] == pytest.approx(1)
    assert rank_correlation(a, -a)[0] == pytest.approx(-1)

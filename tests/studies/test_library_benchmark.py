"""The arms of the library benchmark that need no library: choices meet the budget, every arm is refitted once."""

from dataclasses import replace

import pytest
import torch

from mobivid_core.errors import BudgetError
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.kd import output_errors, reference
from mobivid_core.studies import library_benchmark
from mobivid_core.studies.library_benchmark import RATES, Setting, choices, prepared
from mobivid_core.studies.library_plans import LibraryPlan

OWN = ("ours: any level, one queue", "ours: scores with take-over, one queue")


@pytest.fixture(scope="module")
def setting(teacher, calibration):
    against = reference(teacher, calibration.first(16))
    shared = {"train": None, "evaluator": None, "targets": Targets(3, 2, 16), "steps": 1, "batch": 4}
    answers = dict.fromkeys(("probe", "choice", "fresh"), against)
    return Setting(teacher, calibration=calibration, **answers, **shared)


@pytest.mark.parametrize("name", OWN)
def test_our_arms_meet_the_budget_and_gain_from_the_refit(setting, name):
    budget = 0.8 * sum(p.numel() for p in setting.teacher.parameters())
    chosen = choices(setting, budget, paper=False)[name]()
    assert 0.95 * budget < chosen.plan.parameters <= budget
    plain, cut = prepared(setting, chosen, repair=False)
    repaired, student = prepared(setting, chosen, repair=True)
    assert plain == chosen and cut.sizes == prune(setting.teacher, chosen.plan).sizes
    assert output_errors(student, setting.fresh).mean() < output_errors(cut, setting.fresh).mean()
    assert repaired.seconds > chosen.seconds > 0  # the refit counts as planning


def test_an_arm_below_its_floor_is_refused(setting):
    with pytest.raises(BudgetError, match="floor"):
        choices(setting, 0.3 * sum(p.numel() for p in setting.teacher.parameters()), paper=False)["head-only by KD"]()


def test_rates_are_chosen_on_clips_of_their_own(setting, tmp_path, monkeypatch):
    """Each rate's error differs between the clips of the choice and the fresh ones: only the former may count."""
    choice, fresh = object(), object()
    s = replace(setting, choice=choice, fresh=fresh)
    best = {id(choice): RATES[2], id(fresh): RATES[0]}
    monkeypatch.setattr(library_benchmark, "prepared", lambda s, chosen, repair: (chosen, repair))
    monkeypatch.setattr(library_benchmark, "recovered", lambda s, chosen, start, bank, rate: rate)
    monkeypatch.setattr(
        library_benchmark, "output_errors", lambda rate, against: torch.tensor([abs(rate - best[id(against)])])
    )
    row = lambda s, chosen, start, model, seed: {"model": model, "at": start}  # noqa: E731
    monkeypatch.setattr(library_benchmark, "measured", row)
    chosen = LibraryPlan(PruningPlan.keep_all(setting.teacher.sizes), 1.0, "none")
    rows = library_benchmark.arm_rows(s, {"arm": "x"}, lambda: chosen, 1, lambda seed: None, tmp_path)
    assert rows["rate"][0] == RATES[2] == rows["model"][0]
    assert rows[["refit", "at"]].to_numpy().tolist() == [[False, False], [True, True]]  # every arm, both ways

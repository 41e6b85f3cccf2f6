"""The arms of the library benchmark that need no library: choices meet the budget, every arm is refitted once."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mobivid_core.errors import BudgetError
from mobivid_core.profiles import get_profile
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.kd import output_errors, reference
from mobivid_core.studies import library_benchmark, library_plans
from mobivid_core.studies.library_benchmark import FRESH_START, RATES, Setting, choices, measured, prepared
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


def test_further_seeds_keep_the_rate_and_draw_their_own_batches(setting, tmp_path, monkeypatch):
    tried = []

    def recovered(s, chosen, start, bank, rate):
        tried.append((bank, rate))
        return rate

    monkeypatch.setattr(library_benchmark, "prepared", lambda s, chosen, repair: (chosen, repair))
    monkeypatch.setattr(library_benchmark, "recovered", recovered)
    monkeypatch.setattr(library_benchmark, "output_errors", lambda rate, _: torch.tensor([abs(rate - RATES[1])]))
    monkeypatch.setattr(library_benchmark, "measured", lambda s, chosen, start, model, seed: {"model": model})
    chosen = LibraryPlan(PruningPlan.keep_all(setting.teacher.sizes), 1.0, "none")
    rows = library_benchmark.arm_rows(setting, {"arm": "x"}, lambda: chosen, 3, lambda seed: f"bank {seed}", tmp_path)
    assert rows["rate"].eq(RATES[1]).all() and rows["seed"].tolist() == [0, 1, 2, 0, 1, 2]
    one = [*(("bank 0", rate) for rate in RATES), ("bank 1", RATES[1]), ("bank 2", RATES[1])]
    assert tried == 2 * one  # without and with the refit


def test_numbers_are_of_the_final_clips_before_and_after_recovery(setting, monkeypatch):
    """Error of a model on a set of clips, made up so that every pair differs."""
    errors = {("cut", "fresh"): 0.4, ("done", "fresh"): 0.1, ("done", "choice"): 0.2}
    both = lambda *pair: torch.tensor([errors[pair], 2 * errors[pair]])  # noqa: E731
    monkeypatch.setattr(library_benchmark, "output_errors", both)
    scored = SimpleNamespace(evaluate=lambda model, **how: SimpleNamespace(scores={"total": {"done": 0.8}[model]}))
    s = replace(setting, fresh="fresh", choice="choice", evaluator=scored)
    chosen = LibraryPlan(PruningPlan.keep_all(setting.teacher.sizes), 1.0, "none")
    row = measured(s, chosen, "cut", "done", 0)
    assert row["KD before recovery"] == pytest.approx(0.6) and row["KD recovered"] == pytest.approx(0.15)
    assert row["errors"] == [0.1, 0.2] and row["MiniVBench total"] == 0.8


def test_choices_and_the_final_judgement_share_no_clip(monkeypatch):
    """Every set of clips is known by its split and indices; only the two of the final judgement start afresh."""

    class Clips(SimpleNamespace):
        def __len__(self):
            return len(self.latents)

    def drawn(vae, *, split, count, start=0, **_):
        places = torch.arange(start, start + count)
        return Clips(split=split, latents=places, caption_of=places)

    def replaced(clips, **changes):
        return Clips(**vars(clips) | changes)

    class Answers(SimpleNamespace):
        def first(self, count):
            return Answers(split=self.split, places=self.places[:count])

    monkeypatch.setattr(library_benchmark, "latent_dataset", drawn)
    monkeypatch.setattr(library_benchmark, "replace", replaced)
    monkeypatch.setattr(library_benchmark, "calibration_from", lambda c, **_: Answers(split=c.split, places=c.latents))
    monkeypatch.setattr(library_benchmark, "reference", lambda teacher, calibration: calibration)
    monkeypatch.setattr(library_benchmark.artifacts, "find", lambda *_: SimpleNamespace(path=None))
    teacher = SimpleNamespace(requires_grad_=lambda _: None)
    monkeypatch.setattr(library_benchmark.artifacts, "load_model", lambda *_: teacher)
    asked = {}
    monkeypatch.setattr(library_benchmark.Evaluator, "prepare", lambda *_, **given: asked.update(given))
    s = Setting.load(get_profile("smoke"), steps=1, clips=5)
    sets = {name: (getattr(s, name).split, set(getattr(s, name).places.tolist()))
            for name in ("calibration", "choice", "fresh")}  # fmt: skip
    assert [split for split, _ in sets.values()] == ["train", "val", "val"]
    held = [places for split, places in sets.values() if split == "val"]
    assert sum(map(len, held)) == len(set().union(*held)) > 0
    assert min(sets["fresh"][1]) == FRESH_START == asked["start"] and asked["n"] == 5
    assert max(sets["choice"][1]) < FRESH_START


def test_a_library_gets_the_largest_plan_within_the_budget(teacher):
    plan_at = lambda ratio: SimpleNamespace(parameters=1000 * (1 - ratio))  # noqa: E731
    found = library_plans._at_budget(plan_at, teacher, 640.0)
    assert 640 - 1000 / 2**12 <= found.parameters <= 640
    with pytest.raises(BudgetError, match="no pruning ratio"):
        library_plans._at_budget(lambda ratio: SimpleNamespace(parameters=700), teacher, 640.0)


def test_a_library_gets_its_best_normaliser_and_calibration(teacher, calibration, monkeypatch):
    """Of all settings that are tried the plan of the lowest loss is returned: here without normaliser, 4 samples."""
    losses = {("mean", 2): 0.4, ("mean", 4): 0.3, (None, 2): 0.2, (None, 4): 0.1}
    plans = {}

    def kept(tp, model, score, ratio):
        return replace(PruningPlan.keep_all(teacher.sizes), notes={"normalizer": score})

    def at_budget(kept_at, model, budget):
        plan = kept_at(0.5)
        plan = replace(plan, notes=plan.notes | {"samples": next(sizes)})
        plans[id(plan)] = losses[plan.notes["normalizer"], plan.notes["samples"]]
        return plan

    sizes = iter([2, 2, 4, 4])
    importance = SimpleNamespace(GroupMagnitudeImportance=lambda normalizer: normalizer)
    monkeypatch.setattr(library_plans, "needed", lambda name: SimpleNamespace(importance=importance))
    monkeypatch.setattr(library_plans, "version", lambda name: "0")
    monkeypatch.setattr(library_plans, "_torch_pruning_kept", kept)
    monkeypatch.setattr(library_plans, "_at_budget", at_budget)
    monkeypatch.setattr(library_plans, "prune", lambda model, plan: SimpleNamespace(eval=lambda: plan))
    monkeypatch.setattr(library_plans, "output_errors", lambda plan, _: torch.tensor([plans[id(plan)]]))
    found = library_plans.torch_pruning_plan(teacher, calibration, 1.0, "magnitude", None, samples=(2, 4))
    assert (found.plan.notes["normalizer"], found.plan.notes["samples"]) == ("None", 4)

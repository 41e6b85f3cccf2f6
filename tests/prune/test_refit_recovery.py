"""Refit against an independent solver; recovery lowers the KD loss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mobivid_core.errors import ParameterError, TrainingError
from mobivid_core.flow.path import sample_sigmas
from mobivid_core.measure.intervals import ratio
from mobivid_core.prune.arms import Arm, arms_table, run_arms
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets, plan_for_budget, plan_for_targets
from mobivid_core.prune.recovery import RecoverySettings, TeacherBank, feature_blocks_for, matched_features, recover
from mobivid_core.prune.refit import refit, solve_gated
from mobivid_core.prune.search import without_blocks
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.calibration import calibration_set, stratified_sigmas
from mobivid_core.sensitivity.estimators import random_scores
from mobivid_core.sensitivity.kd import output_errors, reference


@pytest.fixture(scope="module")
def plan(teacher) -> PruningPlan:
    return plan_for_targets(random_scores(teacher.sizes), teacher.sizes, Targets(3, 2, 16))


@pytest.fixture(scope="module")
def data():
    """What recovery needs of a latent dataset."""
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn(64, 4, 2, 2, 2, generator=generator), torch.randn(64, 5, 10, generator=generator)
    mask = torch.ones(64, 5, dtype=torch.bool)

    def draw(size, generator):
        chosen = torch.randint(64, (size,), generator=generator)
        return latents[chosen], text[chosen], mask[chosen]

    return SimpleNamespace(draw=draw, null_text=torch.zeros(1, 5, 10), null_mask=torch.arange(5)[None] < 1)


def test_gated_least_squares_agree_with_lstsq_per_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    inner, gate, wanted = (torch.randn(*s, generator=generator).double() for s in ((6, 7, 3), (6, 2), (6, 7, 2)))
    layer = torch.nn.Linear(3, 2).double()
    before, after = solve_gated(layer, inner, gate, wanted, ridge=1e-12, steps=50, tolerance=1e-12)
    rows = torch.cat([inner, torch.ones(6, 7, 1)], -1)
    for c in range(2):
        design = (gate[:, None, c, None] * rows).flatten(0, 1)
        best = torch.linalg.lstsq(design, wanted[..., c].flatten()[:, None]).solution[:, 0]
        found = torch.cat([layer.weight[c], layer.bias[c : c + 1]])
        assert torch.allclose(found, best, atol=1e-8)  # float64 throughout
    out = (gate[:, None] * layer(inner)).detach()
    assert after == pytest.approx(float((out - wanted).square().sum() / wanted.square().sum()), rel=1e-8)
    assert after < before


def test_ungated_least_squares_need_one_step() -> None:
    inner, wanted = torch.randn(5, 9, 4).double(), torch.randn(5, 9, 3).double()
    errors = []
    for steps in (1, 20):
        layer = torch.nn.Linear(4, 3).double()
        errors.append(solve_gated(layer, inner, None, wanted, ridge=1e-9, steps=steps)[1])
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)


def test_a_strong_ridge_keeps_the_weights() -> None:
    layer = torch.nn.Linear(4, 3)
    weight = layer.weight.clone()
    solve_gated(layer, torch.randn(5, 9, 4), torch.randn(5, 3), torch.randn(5, 9, 3), ridge=1e9)
    assert torch.allclose(layer.weight, weight, atol=1e-6)


def test_refit_never_raises_a_layers_calibration_error_and_helps_held_out(teacher, calibration, plan) -> None:
    student = prune(teacher, plan).eval()
    many = calibration_set(calibration.velocity, calibration.text, calibration.mask, samples=400, seed=1)
    again, report = refit(student, teacher, plan, many, progress=False)
    assert len(report.layers) == 3 * 3 + 1
    # conjugate gradients fall monotonically; float32 products round at about one part in a million
    assert all(after <= before + 1e-6 for before, after in zip(report.before, report.after, strict=False))
    held_out = reference(teacher, calibration_set(calibration.velocity, calibration.text, calibration.mask, seed=9))
    assert output_errors(again, held_out).mean() < 0.8 * output_errors(student, held_out).mean()


def test_refit_of_an_unpruned_model_changes_nothing(teacher, calibration) -> None:
    plan = PruningPlan.keep_all(teacher.sizes)
    again, report = refit(prune(teacher, plan), teacher, plan, calibration, progress=False)
    assert float(output_errors(again, reference(teacher, calibration)).mean()) < 1e-9  # float32 rounding only
    assert max(report.before) < 1e-9


def test_refit_refuses_strangers(teacher, calibration, plan) -> None:
    with pytest.raises(ParameterError, match="do not match the plan"):
        refit(teacher, teacher, plan, calibration)


def test_kept_blocks_stand_for_the_removed_ones_after_them(teacher) -> None:
    plan = without_blocks(teacher.sizes, (0, 2))
    assert [plan.stands_for(i) for i in (0, 1)] == [1, 3]
    assert matched_features(plan) == {0: 1}


def test_recovery_lowers_the_kd_loss_and_repeats(teacher, calibration, plan, data) -> None:
    student, held_out = prune(teacher, plan).eval(), reference(teacher, calibration)
    settings = RecoverySettings(steps=40, batch=16, learning_rate=3e-3, data_weight=0.1)
    bank = TeacherBank(teacher, data, 16, feature_blocks_for([plan]), keep=True)
    before = output_errors(student, held_out).mean()
    recovered, result = recover(student, plan, bank, settings, progress=False)
    assert output_errors(recovered, held_out).mean() < 0.7 * before
    assert {"loss", "output", "features", "data"} <= set(result.log[-1])
    assert output_errors(student, held_out).mean() == before  # the input is left alone
    twice, _ = recover(student, plan, bank, settings, progress=False)
    assert torch.equal(twice.proj_out.weight, recovered.proj_out.weight)  # one thread, same batches: same bits
    assert not any(p.grad is not None for p in teacher.parameters())


def test_bank_lessons_do_not_depend_on_keeping_them(teacher, data) -> None:
    kept, fresh = (TeacherBank(teacher, data, 4, (1,), keep=keep) for keep in (True, False))
    kept.lesson(3)
    assert torch.equal(kept.lesson(3).output, fresh.lesson(3).output)
    assert not torch.equal(fresh.lesson(3).calibration.noisy, fresh.lesson(4).calibration.noisy)


def test_diverging_recovery_is_reported(teacher, plan, data) -> None:
    student = prune(teacher, plan)
    with torch.no_grad():
        student.proj_out.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        recover(
            student,
            plan,
            TeacherBank(teacher, data, 4, feature_blocks_for([plan])),
            RecoverySettings(20, 4),
            progress=False,
        )


def test_arms_report_every_stage(teacher, calibration, data) -> None:
    whole = sum(p.numel() for p in teacher.parameters())
    plan = plan_for_budget(random_scores(teacher.sizes), teacher.sizes, 0.7 * whole)
    held_out = reference(teacher, calibration)
    settings = RecoverySettings(steps=5, batch=8)
    results = run_arms(
        [Arm("a", plan), Arm("b", plan, refit=False)], teacher, calibration, data, held_out, settings, progress=False
    )
    table = arms_table(results, whole)
    assert list(table["arm"]) == ["a", "b"] and (table["low"] <= table["KD recovered"]).all()
    assert table["KD refitted"].isna().tolist() == [False, True]
    assert table["KD refitted"][0] < table["KD pruned"][0]
    for row, result in zip(table.itertuples(), results, strict=True):
        assert torch.equal(torch.from_numpy(result.recovered), output_errors(result.model, held_out))
        assert row._4 == pytest.approx(result.pruned.mean()) and row._6 == pytest.approx(result.recovered.mean())
    value, low, high = ratio(results[0].recovered, results[0].recovered)
    assert value == low == high == 1


def test_sigmas_are_stratified_over_the_training_law() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, drawn = stratified_sigmas(2000, generator), sample_sigmas(200_000, generator)
    for q in (0.1, 0.5, 0.9):
        assert float(ours.quantile(q)) == pytest.approx(float(drawn.quantile(q)), abs=5e-3)  # 200,000 draws: 0.001


def test_refit_makes_up_for_blocks_removed_in_front(teacher, calibration) -> None:
    """Without block 0, block 1 is fitted to the teacher's state after both: not to what it makes of the raw input."""
    plan = without_blocks(teacher.sizes, (1, 2, 3))
    cut = prune(teacher, plan).eval()
    student, _ = refit(cut, teacher, plan, calibration, progress=False)
    with torch.no_grad():
        inputs = (calibration.noisy, calibration.timestep, calibration.text, calibration.mask)
        ours, plain = (model(*inputs, feature_blocks=(0,)).features[0] for model in (student, cut))
        after = teacher(*inputs, feature_blocks=(1,)).features[0]
    assert (ours - after).square().mean() < 0.9 * (plain - after).square().mean()


def test_refit_makes_up_for_removed_blocks(teacher, calibration) -> None:
    """A kept block is fitted to the state after the removed ones that it stands for, not to its own block's."""
    plan = without_blocks(teacher.sizes, (0, 1, 3))  # block 1 stands for 1 and 2
    student, _ = refit(prune(teacher, plan).eval(), teacher, plan, calibration, progress=False)
    with torch.no_grad():
        inputs = (calibration.noisy, calibration.timestep, calibration.text, calibration.mask)
        ours = student(*inputs, feature_blocks=(1,)).features[0]
        own, after = teacher(*inputs, feature_blocks=(1, 2)).features
    assert (ours - after).square().mean() < 0.9 * (own - after).square().mean()
    assert (ours - after).square().mean() < (ours - own).square().mean()

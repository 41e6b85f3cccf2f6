"""Scores with take-over: equal to Gauss-Newton where they must be, and wise about redundant units."""

import copy

import numpy as np
import pytest
import torch

from mobivid_core.prune.planner import plan_for_budget
from mobivid_core.prune.refit import refit
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.compensated import compensated_scores
from mobivid_core.sensitivity.damage import gauss_newton_sensitivity
from mobivid_core.sensitivity.kd import output_errors, reference


@pytest.fixture(scope="module")
def both(teacher, calibration):
    return compensated_scores(teacher, reference(teacher, calibration), probes=2, seed=0)


def test_second_result_is_gauss_newton(teacher, calibration, both):
    """Same probes, same gates, another way to get them."""
    known, _ = gauss_newton_sensitivity(teacher, reference(teacher, calibration), probes=2, seed=0)
    for kind in ("blocks", "self_heads", "cross_heads", "ffn"):
        np.testing.assert_allclose(both[1].flat(kind), known.flat(kind), rtol=1e-3, atol=1e-9)


def test_take_over_makes_units_cheaper(both):
    """The first to leave costs at most what it costs alone in the same metric; prices are positive and finite."""
    compensated, alone = (scores.flat("widths") for scores in both)
    assert np.isfinite(compensated).all() and (compensated >= 0).all()
    assert compensated.sum() < alone.sum()


def test_a_copied_neuron_is_free(teacher, calibration):
    """Two equal neurons: one of them can go, and Gauss-Newton does not see it."""
    model = copy.deepcopy(teacher)
    with torch.no_grad():
        up = model.blocks[0].ffn.up
        up.weight[1], up.bias[1] = up.weight[0], up.bias[0]
    compensated, alone = compensated_scores(model, reference(model, calibration), probes=2)
    copied, others = (compensated.ffn[0] / alone.ffn[0])[:2], (compensated.ffn[0] / alone.ffn[0])[2:]
    assert copied.min() < 0.2 * np.median(others)  # not zero: the ridge holds weights where they are


def test_model_and_its_gradients_are_left_alone(teacher, calibration):
    before = copy.deepcopy(teacher.state_dict())
    compensated_scores(teacher, reference(teacher, calibration.first(8)))
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_plans_are_better_after_the_refit(teacher, calibration, both):
    """Where it counts: the KD loss of the refitted cut, on the clips that both were made on."""
    against = reference(teacher, calibration)
    budget = 0.75 * sum(p.numel() for p in teacher.parameters())
    found = []
    for scores in both:
        plan = plan_for_budget(scores, teacher.sizes, budget, ("heads", "ffn"))
        student, _ = refit(prune(teacher, plan).eval(), teacher, plan, calibration, progress=False)
        found.append(float(output_errors(student, against).mean()))
    assert found[0] < found[1]

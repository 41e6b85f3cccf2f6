"""Sensitivity against analytic truth, brute force, and itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.measure.intervals import rank_correlation
from mobivid_core.models.dit import Gates
from mobivid_core.prune.refit import _teacher_block
from mobivid_core.prune.search import eliminate_blocks, rescore, without_blocks
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.damage import exact_sensitivity, first_order_taylor, gauss_newton_sensitivity
from mobivid_core.sensitivity.estimators import block_influence, magnitude_scores, task_loss_scores
from mobivid_core.sensitivity.kd import forward, output_errors, reference


@pytest.fixture(scope="module")
def against(teacher, calibration):
    return reference(teacher, calibration, (1, 2))


def test_staged_forward_equals_the_model(teacher, calibration) -> None:
    with torch.no_grad():
        x, context = teacher.enter(*calibration.inputs)
        stepwise = x
        for b in range(len(teacher.blocks)):
            x = teacher.run_block(b, x, context)
            stepwise = _teacher_block(teacher, b, stepwise, context)[-1]
        expected = forward(teacher, calibration)[0]
        assert (teacher.leave(x, context) - expected).abs().max() < 1e-5  # float32, same operations
        assert (teacher.leave(stepwise, context) - expected).abs().max() < 1e-5


def test_feature_terms_share_one_weight(against) -> None:
    """Doubling the feature error of every block adds the weight times its mean share, however many blocks there are."""
    rows = slice(0, 4)
    exact = against.output[rows], tuple(f[rows] for f in against.features)
    assert against.damage(rows, *exact).abs().max() == 0
    doubled = against.damage(rows, exact[0], tuple(2 * f for f in exact[1]))
    whole = [f.square().flatten(1).sum(1) for f in against.features]
    shares = torch.stack([own[rows] / own.mean() for own in whole]).mean(0)
    torch.testing.assert_close(doubled, against.feature_weight * shares)


def test_first_order_taylor_is_identically_zero(teacher, against) -> None:
    assert first_order_taylor(teacher, against) == 0


def test_exact_scores_equal_brute_force(teacher, calibration, against) -> None:
    exact = exact_sensitivity(teacher, against, slices=4, progress=False)
    gates = Gates.ones(teacher.sizes)
    gates.cross_heads[1][2] = 0
    with torch.no_grad():
        output, features = teacher(
            calibration.noisy,
            calibration.timestep,
            calibration.text,
            calibration.mask,
            gates=gates,
            feature_blocks=(1, 2),
            return_dict=False,
        )
    damage = against.damage(slice(0, len(calibration)), output, features).mean()
    assert exact.scores.cross_heads[1][2] == pytest.approx(float(damage), rel=1e-4)  # float32 sums in another order
    gone = prune(teacher, without_blocks(teacher.sizes, (0, 1, 3)))
    plain = exact_sensitivity(teacher, reference(teacher, calibration), units=("blocks",), progress=False).scores
    assert plain.blocks[2] == pytest.approx(float(output_errors(gone, against).mean()), rel=1e-4)
    assert np.isnan(plain.flat("ffn")).all()
    share = exact.motion_share.flat("widths")
    assert ((share >= 0) & (share <= 1)).all()
    with pytest.raises(ParameterError, match="unknown units"):
        exact_sensitivity(teacher, against, units=("layers",), progress=False)


def test_gauss_newton_equals_the_hessian_diagonal(teacher, calibration) -> None:
    """E over probes of the squared gradient is half the true second derivative of the KD loss at gates = 1."""
    few = calibration.first(4)
    against = reference(teacher, few, (1,))
    estimate, _ = gauss_newton_sensitivity(teacher, against, probes=1500, slices=4)

    def loss(values: torch.Tensor) -> torch.Tensor:
        gates = Gates.ones(teacher.sizes)
        gates.self_heads[0], gates.blocks = values[:4], values[4:]
        out, features = teacher(
            few.noisy, few.timestep, few.text, few.mask, gates=gates, feature_blocks=(1,), return_dict=False
        )
        return against.damage(slice(0, 4), out, features).mean()

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # has second derivatives
        hessian = torch.autograd.functional.hessian(loss, torch.ones(8)).diagonal() / 2
    found = np.concatenate([estimate.self_heads[0], estimate.blocks])
    # 1,500 probes x 4 samples: each mean of squares has a relative deviation of about sqrt(2 / 6000) = 2 %.
    assert np.allclose(found, hessian.numpy(), rtol=0.1)


def test_gauss_newton_is_exact_where_the_model_is_linear_in_the_gate(teacher, calibration) -> None:
    """Neurons of the last block act linearly on the stream; with only features there, second order is all there is."""
    last = len(teacher.blocks) - 1
    against = reference(teacher, calibration.first(16), (last,), feature_weight=1e6)  # the feature term decides
    exact = exact_sensitivity(teacher, against, units=("ffn",), slices=8, progress=False).scores.ffn[last]
    _, sliced = gauss_newton_sensitivity(teacher, against, probes=300, slices=8)
    assert np.allclose(sliced.ffn[last], exact, rtol=0.1)  # 4,800 draws: 2 % each


def test_gauss_newton_ranks_like_exact_and_is_cheap(teacher, against) -> None:
    exact = exact_sensitivity(teacher, against, slices=4, progress=False).scores
    fine, sliced = gauss_newton_sensitivity(teacher, against, probes=8, slices=4)
    fine.check(teacher.sizes)
    # The untrained model is far from linear in whole heads; on a trained one the correlation is higher.
    assert rank_correlation(exact.flat("widths"), sliced.flat("widths"))[0] > 0.8
    assert sliced.passes == 1 + 2 * 8 < exact.passes
    assert all(p.requires_grad for p in teacher.parameters())


def test_other_estimators_fit_the_model(teacher, calibration) -> None:
    for scores in (*task_loss_scores(teacher, calibration), magnitude_scores(teacher)):
        scores.check(teacher.sizes)
        assert (scores.flat("widths") >= 0).all() and scores.flat("ffn").std() > 0
    assert (block_influence(teacher, calibration) > 0).all()


def test_elimination_starts_with_the_least_exact_score_and_rescoring_keeps_indices(teacher, calibration) -> None:
    against = reference(teacher, calibration)
    kept, history = eliminate_blocks(teacher, against, keep=2, progress=False)
    exact = exact_sensitivity(teacher, against, units=("blocks",), progress=False).scores.blocks
    assert history[0][0] == int(exact.argmin()) and history[0][1] == pytest.approx(exact.min(), rel=1e-4)
    pruned = prune(teacher, without_blocks(teacher.sizes, kept))
    assert history[-1][1] == pytest.approx(float(output_errors(pruned, against).mean()), rel=1e-4)
    again = rescore(teacher, against, kept, probes=1)
    again.check(teacher.sizes)
    assert all((again.ffn[b] > 0).any() == (b in kept) for b in range(4))

"""Checks of exercise notebook 03: first and second order of a distillation loss, and rank correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from mobivid_core.lab.teaching.verdict import checked, run, wrong_if
from mobivid_core.measure.intervals import rank_correlation

Loss = Callable[[Tensor], Tensor]


def toy_loss(units: int = 5, seed: int = 0) -> Loss:
    """KD loss of a small linear model as a function of its units' gates; it is a quadratic function, zero at all ones.

    Args:
        units: Number of gates.
        seed: Seed of weights and inputs.

    Returns:
        Function of gates (units,) to a scalar: |y(gates) - y(1)|^2 / |y(1)|^2, y of shape (16 samples, 3 outputs).
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(units, 3, generator=generator, dtype=torch.float64)
    inputs = torch.randn(16, units, generator=generator, dtype=torch.float64)

    def loss(gates: Tensor) -> Tensor:
        teacher = inputs @ weight
        return (((inputs * gates) @ weight) - teacher).square().sum() / teacher.square().sum()

    return loss


def exact_rises(loss: Loss, units: int) -> Tensor:
    """(units,) the loss with each unit removed alone."""
    return torch.stack([loss(1 - row) for row in torch.eye(units, dtype=torch.float64)])


@checked
def taylor(first_order: Callable[..., Tensor], second_order: Callable[..., Tensor]) -> str:
    """Taylor scores of gates.

    Args:
        first_order: (loss, units) -> (units,) gradient at the full model.
        second_order: (loss, units) -> (units,) estimated rise of the loss when a unit goes.
    """
    loss, units = toy_loss(6, seed=11), 6
    first, exact = torch.as_tensor(run(first_order, loss, units)).detach(), exact_rises(loss, units)
    wrong_if(
        first.shape != (units,),
        f"`first_order` has to return one number a unit, shape ({units},); got {tuple(first.shape)}.",
    )
    wrong_if(
        first.abs().max() > 1e-9,
        "`first_order` is not the gradient at the full model: there the student is the teacher. At "
        "which gates did you take it?",
    )
    second = torch.as_tensor(run(second_order, loss, units)).detach().to(exact)
    wrong_if(second.shape != (units,), f"`second_order` has to return shape ({units},); got {tuple(second.shape)}.")
    wrong_if(
        torch.allclose(second, 2 * exact),
        "`second_order` is too large by one and the same factor everywhere: look at the Taylor "
        "series' second term again.",
    )
    wrong_if(
        second.abs().max() < 1e-9,
        "`second_order` is zero everywhere: you built it on the gradient, which vanishes here.",
    )
    wrong_if(
        not torch.allclose(second, exact),
        "`second_order` does not give the rise of the loss, though this loss is exactly quadratic. "
        "Does each unit use its own "
        "entry of the diagonal?",
    )
    return "the gradient is blind at the teacher, and for a quadratic loss the second order is exact."


@checked
def ranks(spearman: Callable[..., float], most_faithful: str, scores: Mapping[str, np.ndarray]) -> str:
    """Rank correlation, and the estimator that ranks most like exact removal.

    Args:
        spearman: (a, b) -> rank correlation.
        most_faithful: Name of the estimator.
        scores: Estimator -> scores; "exact" among them.
    """
    rng = np.random.default_rng(5)
    a = rng.permutation(30).astype(float)
    b = a + 8 * rng.standard_normal(30)
    right = rank_correlation(a, b)[0]
    found = float(run(spearman, a, b))
    wrong_if(
        abs(float(run(spearman, np.exp(a / 5), b)) - found) > 1e-9,
        "`spearman` changes when one side goes through exp, which leaves the order as it is: you "
        "correlate values, not ranks.",
    )
    wrong_if(abs(found + right) < 1e-9, "`spearman` has the wrong sign: two lists in the same order have to give +1.")
    wrong_if(
        abs(found - right) > 1e-9,
        "`spearman` does not turn lists into ranks: `argsort` says where the smallest lies, not "
        "which rank each entry has.",
    )
    rho = {name: rank_correlation(scores["exact"], s)[0] for name, s in scores.items() if name != "exact"}
    wrong_if(most_faithful == "exact", "`most_faithful`: exact removal is what the others are compared with.")
    wrong_if(most_faithful not in rho, f"`most_faithful` is one of {', '.join(rho)}.")
    wrong_if(
        rho[most_faithful] < max(rho.values()),
        "`most_faithful`: another estimator's order is closer to that of exact removal.",
    )
    return "ranks, not values: so estimators with different units can be compared."

"""Checks of exercise notebook 03: first and second order of a distillation loss, and rank correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from mobivid_core.lab.teaching.verdict import Wrong, checked, run
from mobivid_core.measure.intervals import rank_correlation

Loss = Callable[[Tensor], Tensor]


def toy_loss(units: int = 5, seed: int = 0) -> Loss:
    """KD loss of a small linear model as a function of its units' gates (units,): quadratic, zero at all ones.

    It is |y(gates) - y(1)|^2 / |y(1)|^2 with y of shape (16 samples, 3 outputs).
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
    """Taylor scores of gates, (units,): the gradient at the full model, the estimated rise when a unit goes."""
    loss, units = toy_loss(6, seed=11), 6
    first, exact = torch.as_tensor(run(first_order, loss, units)).detach(), exact_rises(loss, units)
    if first.shape != (units,):
        raise Wrong(f"`first_order` has to return one number a unit, shape ({units},); got {tuple(first.shape)}.")
    if first.abs().max() > 1e-9:
        raise Wrong("`first_order` is not the gradient where student and teacher are equal. At which gates is it?")
    second = torch.as_tensor(run(second_order, loss, units)).detach().to(exact)
    if second.shape != (units,):
        raise Wrong(f"`second_order` has to return shape ({units},); got {tuple(second.shape)}.")
    if torch.allclose(second, 2 * exact):
        raise Wrong("`second_order` is too large by the same factor everywhere: what is the second term of the series?")
    if second.abs().max() < 1e-9:
        raise Wrong("`second_order` is zero everywhere: you built it on the gradient, which vanishes here.")
    if not torch.allclose(second, exact):
        raise Wrong(
            "`second_order` misses the rise of a quadratic loss. Does each unit use its own entry of the diagonal?"
        )
    return "the gradient is blind at the teacher, and for a quadratic loss the second order is exact."


@checked
def ranks(spearman: Callable[..., float], most_faithful: str, scores: Mapping[str, np.ndarray]) -> str:
    """Rank correlation, and the estimator whose scores rank most like those of "exact" removal."""
    rng = np.random.default_rng(5)
    a = rng.permutation(30).astype(float)
    b = a + 8 * rng.standard_normal(30)
    right = rank_correlation(a, b)[0]
    found = float(run(spearman, a, b))
    if abs(float(run(spearman, np.exp(a / 5), b)) - found) > 1e-9:
        raise Wrong(
            "`spearman` changes when one side goes through exp, which keeps the order: these are values, not ranks."
        )
    if abs(found + right) < 1e-9:
        raise Wrong("`spearman` has the wrong sign: two lists in the same order have to give +1.")
    if abs(found - right) > 1e-9:
        raise Wrong("`spearman`: `argsort` says where the smallest lies, not which rank each entry has.")
    rho = {name: rank_correlation(scores["exact"], s)[0] for name, s in scores.items() if name != "exact"}
    if most_faithful == "exact":
        raise Wrong("`most_faithful`: exact removal is what the others are compared with.")
    if most_faithful not in rho:
        raise Wrong(f"`most_faithful` is one of {', '.join(rho)}.")
    if rho[most_faithful] < max(rho.values()):
        raise Wrong("`most_faithful`: another estimator's order is closer to that of exact removal.")
    return "ranks, not values: so estimators with different units can be compared."

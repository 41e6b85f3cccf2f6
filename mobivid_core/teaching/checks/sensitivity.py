"""Checks of notebook 03's exercises: a first-order score that sees nothing, damages and their order, rank correlation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from mobivid_core.teaching.verdict import checked, run, wrong_if

VelocityOf = Callable[[Tensor], Tensor]
_REASONS = {
    "A": "a saturated network would give small gradients, and not the same exact number for every unit.",
    "C": "close one gate and look at the output: is it really unconnected?",
    "D": "rounding would leave tiny numbers that differ from unit to unit.",
}


def _loss(velocity: Tensor, target: Tensor) -> Tensor:
    return (velocity - target).square().sum() / target.square().sum()


@checked
def taylor(
    gate_gradient: Callable[[VelocityOf, Tensor, Tensor], Tensor], velocity_of: VelocityOf, target: Tensor, reason: str
) -> str:
    """`gate_gradient(velocity_of, target, gates)`: gradient of the KD loss; `reason`: why it vanishes at open gates."""
    blocks = len(run(gate_gradient, velocity_of, target, torch.ones(14)))
    wrong_if(blocks != 14, f"there is one gate a block, 14 in all, but the gradient has {blocks} entries.")
    half = torch.full((14,), 0.5)
    away = run(gate_gradient, velocity_of, target, half)
    wrong_if(not bool(away.abs().max() > 0), "with half-closed gates the loss does change: is its gradient taken at `gates`?")
    step = torch.zeros(14)
    step[3] = 0.02
    with torch.no_grad():
        slope = (_loss(velocity_of(half + step), target) - _loss(velocity_of(half - step), target)) / 0.04
    ratio = float(away[3] / slope)
    wrong_if(ratio < 0, "the sign of the gradient is that of a gain, not of a loss.")
    # Central differences of step 0.02 in float32: a few per cent.
    wrong_if(
        abs(ratio - 1) > 0.1,
        f"right in kind, but {ratio:.3g} times a finite difference of the loss: is it a share of the teacher's power?",
    )
    at_ones = float(run(gate_gradient, velocity_of, target, torch.ones(14)).abs().max())
    wrong_if(at_ones > 1e-6, "with all gates open the student is the teacher, and your gradient is not what follows from it.")
    wrong_if(reason not in ("A", "B", "C", "D"), "`reason` is one of the letters A to D.")
    wrong_if(reason != "B", f"the gradient is right, the reason is not: {_REASONS.get(reason)}")
    return f"exactly {at_ones:g} at open gates, {float(away.abs().max()):.2g} half-way. No choice of data changes the first."


@checked
def removal(damage: Sequence[float], order: Sequence[int], velocity_of: VelocityOf, target: Tensor) -> str:
    """`damage`: KD loss after closing each block alone; `order`: blocks in the order in which they should go."""
    values, ranks = np.asarray(damage, dtype=float), np.asarray(order)
    wrong_if(values.shape != (14,), f"there are 14 blocks, and `damage` has the shape {values.shape}.")
    wrong_if((values <= 0).any(), "a damage of zero: was that gate really closed?")
    for block in (0, 7, 13):
        gates = torch.ones(14)
        gates[block] = 0
        with torch.no_grad():
            own = float(_loss(velocity_of(gates), target))
        wrong_if(abs(values[block] - own) > 0.02 * own and abs(values[block] - float(1 - own)) < 0.02, "this is what is left, not the damage.")
        wrong_if(
            abs(values[block] - own) > 0.02 * own,
            f"block {block}: your damage is {values[block] / own:.3g} times the loss with that gate closed and all others open.",
        )
    wrong_if(sorted(ranks.tolist()) != list(range(14)), "`order` names each block once, by its index.")
    best = np.argsort(values)
    wrong_if((ranks == best[::-1]).all(), "the ranks are reversed: did you sort by what stays rather than what goes?")
    wrong_if(
        (ranks == np.argsort(best)).all() and not (ranks == best).all(),
        "these are the blocks' ranks; the exercise asks for the blocks, in the order of their ranks.",
    )
    late = int((values[ranks[:-1]] > values[ranks[1:]]).sum())
    wrong_if(late, f"{late} block(s) go before one that does less damage.")
    return "the first to go is the one that is missed least. Is it in the middle? Notebook 04 measures again after each."


@checked
def rank_correlation(spearman: Callable[[np.ndarray, np.ndarray], float], exact: np.ndarray, estimate: np.ndarray) -> str:
    """`spearman(a, b)`: correlation of ranks (no ties)."""
    generator = np.random.default_rng(3)
    a = generator.permutation(12).astype(float)
    b = np.exp(a + generator.normal(size=12) * 3)
    got, right = float(run(spearman, a, b)), float(spearmanr(a, b)[0])
    wrong_if(abs(got - pearsonr(a, b)[0]) < 1e-9, "the values themselves are correlated, so one large value decides.")
    indices = pearsonr(np.argsort(a), np.argsort(b))[0]
    wrong_if(abs(got - indices) < 1e-9, "`argsort` says which element comes at each place, not the place of each element.")
    wrong_if(abs(got + right) < 1e-9, "one of the two is ranked from the other end.")
    wrong_if(abs(got) > 1 + 1e-9, "a correlation lies between -1 and 1.")
    wrong_if(abs(run(spearman, a, a**3) - 1) > 1e-9, "a monotone change of one side must not matter to ranks.")
    wrong_if(abs(got - right) > 1e-9, "not the correlation of the two lists of ranks.")
    here = float(run(spearman, exact, estimate))
    return f"ranks only. On notebook 03's scores of heads and FFN slices your function gives {here:.3f}."

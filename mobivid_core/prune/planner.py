"""Spending a budget: greedy tri-level selection by score per cost saved, and cuts with given counts.

Paper: sensitivity-aware tri-level pruning. All three levels compete in one queue (`prune.greedy`). Neurons are ranked
one by one and rounded afterwards. Scores are never normalised per layer: in trials, that and ranking groups of neurons
chose worse units.

Simplified: damages add up. The caller corrects for interaction by scoring again after blocks are gone
(`prune.search`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from mobivid_core.errors import BudgetError, ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.costs import LinearCost, parameter_cost
from mobivid_core.prune.greedy import EMPTY_LAYERS, KINDS, SMALLEST, Counts, GreedyQueue, Minimum
from mobivid_core.prune.plan import LEVELS, PruningPlan
from mobivid_core.sensitivity.scores import Scores, unit_widths


@dataclass(frozen=True)
class Targets(Counts):
    """Counts of the pruned model: blocks in all, heads (of each kind) and FFN neurons per kept block."""

    @classmethod
    def of(cls, mobile: DiTConfig) -> Targets:
        """The counts of a uniform model such as `MOBILE`."""
        return cls(mobile.blocks, mobile.self_heads[0], mobile.ffn_widths[0])


def floor_cost(
    sizes: DiTConfig, levels: Sequence[str] = LEVELS, minimum: Minimum = SMALLEST, cost: LinearCost | None = None
) -> float:
    """Cost (parameters, if `cost` is None) of the smallest model that pruning `levels` of `sizes` can reach."""
    _check_levels(levels)
    cost = cost or parameter_cost(sizes)
    blocks = []
    for widths in zip(sizes.self_heads, sizes.cross_heads, sizes.ffn_widths, strict=False):
        heads = [min(h, minimum.heads) if "heads" in levels else h for h in widths[:2]]
        neurons = min(widths[2], minimum.ffn) if "ffn" in levels else widths[2]
        blocks.append(cost.block_total(*heads, neurons))
    kept = sorted(blocks)[: minimum.blocks] if "blocks" in levels else blocks
    return cost.fixed + sum(kept)


def plan_for_budget(
    scores: Scores,
    sizes: DiTConfig,
    budget: float,
    levels: Sequence[str] = LEVELS,
    *,
    cost: LinearCost | None = None,
    minimum: Minimum = SMALLEST,
    multiple: int = 1,
    keep_blocks: Sequence[int] | None = None,
) -> PruningPlan:
    """Remove the cheapest damage per cost saved until the model fits the budget.

    Args:
        scores: One score per unit of `sizes`.
        sizes: The model to be pruned.
        budget: Largest allowed cost of the pruned model, in the unit of `cost`.
        levels: Any of "blocks", "heads", "ffn".
        cost: The price list; parameters if None.
        minimum: What has to stay; `EMPTY_LAYERS` allows whole layers to go.
        multiple: FFN widths are rounded to this multiple (of the least important neurons, in steps).
        keep_blocks: Blocks already chosen; the others are gone and the "blocks" level is closed.

    Raises:
        BudgetError: The budget is no finite number, lies below the floor of these levels, or above the model.
        ParameterError: Scores that do not fit or are not finite, a multiple below one, or blocks that are not there.
    """
    scores.check(sizes)
    if not _is_count(multiple):
        raise ParameterError(f"multiple must be a whole number above zero, got {multiple!r}; 1 leaves widths free")
    _check_blocks(keep_blocks, sizes)
    cost = cost or parameter_cost(sizes)
    _check_budget(sizes, budget, levels, minimum, cost)
    queue = GreedyQueue(scores, sizes, cost, levels, minimum, multiple, keep_blocks)
    while queue.total > budget:
        if not queue.remove_cheapest():
            raise BudgetError(
                f"budget of {budget:,.0f} {cost.unit} cannot be reached: {queue.total:,.0f} are left after "
                f"removing every unit that levels {tuple(levels)}, multiple={multiple} and keep_blocks allow; raise "
                "the budget or loosen them"
            )
    queue.give_back(budget)
    return queue.plan(
        {"method": "greedy", "scores": scores.estimator, "budget": budget, "unit": cost.unit, "levels": list(levels)}
    )


def plan_for_targets(
    scores: Scores,
    sizes: DiTConfig,
    targets: Targets,
    *,
    keep_blocks: Sequence[int] | None = None,
    allocation: str = "per_block",
) -> PruningPlan:
    """A plan with given counts.

    Args:
        scores: One score per unit of `sizes`; the highest stay.
        sizes: The model to be pruned.
        targets: Counts to reach.
        keep_blocks: Blocks already chosen; otherwise those with the highest block score.
        allocation: "per_block" gives every block the target widths (the paper's cut); "global" spends the same
            totals of heads (self and cross together) and of neurons where the scores say, at least one in each layer.

    Raises:
        BudgetError: A target is larger than the model or below one.
    """
    scores.check(sizes)
    _check_targets(sizes, targets)
    _check_blocks(keep_blocks, sizes)
    if keep_blocks is None:
        keep_blocks = _highest(scores.blocks, targets.blocks)
    if allocation == "per_block":
        kept = {
            kind: tuple(_highest(getattr(scores, kind)[b], targets.units(kind)) for b in keep_blocks) for kind in KINDS
        }
    elif allocation == "global":
        n = len(keep_blocks)
        heads = [scores.self_heads[b] for b in keep_blocks] + [scores.cross_heads[b] for b in keep_blocks]
        chosen = _highest_in_all(heads, targets.heads * 2 * n)
        ffn = _highest_in_all([scores.ffn[b] for b in keep_blocks], targets.ffn * n)
        kept = {"self_heads": chosen[:n], "cross_heads": chosen[n:], "ffn": ffn}
    else:
        raise ParameterError(f"unknown allocation {allocation!r}; use 'per_block' or 'global'")
    notes = {"method": f"targets, {allocation}", "scores": scores.estimator}
    return PruningPlan(sizes, tuple(int(b) for b in keep_blocks), **kept, notes=notes)


def uniform_plan(sizes: DiTConfig, targets: Targets) -> PruningPlan:
    """The same counts everywhere, evenly spaced, without looking at any score."""
    _check_targets(sizes, targets)
    blocks = _evenly(sizes.blocks, targets.blocks)
    kept = {
        kind: tuple(_evenly(widths[b], targets.units(kind)) for b in blocks)
        for kind, widths in unit_widths(sizes).items()
    }
    return PruningPlan(sizes, blocks, **kept, notes={"method": "uniform", "scores": "none"})


def _highest(values: np.ndarray, count: int) -> tuple[int, ...]:
    order = np.argsort(-np.asarray(values, dtype=float), kind="stable")
    return tuple(sorted(int(i) for i in order[:count]))


def _highest_in_all(layers: list[np.ndarray], count: int) -> tuple[tuple[int, ...], ...]:
    """The `count` highest over all layers, at least one in each."""
    first = [int(np.argmax(values)) for values in layers]
    rest = [(-float(v), i, j) for i, values in enumerate(layers) for j, v in enumerate(values) if j != first[i]]
    kept = [{j} for j in first]
    for _, i, j in sorted(rest)[: count - len(layers)]:
        kept[i].add(j)
    return tuple(tuple(sorted(k)) for k in kept)


def _evenly(width: int, count: int) -> tuple[int, ...]:
    """`count` of `width` indices, evenly spaced, both ends included where there are two or more."""
    return tuple(int(i) for i in np.round(np.linspace(0, width - 1, count)))


def _check_levels(levels: Sequence[str]) -> None:
    if not levels or not set(levels) <= set(LEVELS):
        raise ParameterError(f"unknown pruning levels {tuple(levels)}; use one or more of {LEVELS}")


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _check_blocks(keep_blocks: Sequence[int] | None, sizes: DiTConfig) -> None:
    if keep_blocks is None:
        return
    given = list(keep_blocks)
    if not given or len(set(given)) < len(given) or not set(given) <= set(range(sizes.blocks)):
        raise ParameterError(f"keep_blocks must be distinct blocks of 0..{sizes.blocks - 1}, at least one; got {given}")


def _check_targets(sizes: DiTConfig, targets: Targets) -> None:
    limits = {
        "blocks": sizes.blocks,
        "heads": min(*sizes.self_heads, *sizes.cross_heads),
        "ffn": min(sizes.ffn_widths),
    }
    for name, limit in limits.items():
        if not _is_count(getattr(targets, name)) or getattr(targets, name) > limit:
            raise BudgetError(f"target of {getattr(targets, name)} {name} is impossible: the model allows 1 to {limit}")


def _check_budget(sizes: DiTConfig, budget: float, levels: Sequence[str], minimum: Minimum, cost: LinearCost) -> None:
    floor, whole = floor_cost(sizes, levels, minimum, cost), cost.total(sizes)
    if isinstance(budget, bool) or not isinstance(budget, Real) or not math.isfinite(budget):
        raise BudgetError(f"a budget is a finite number of {cost.unit}, got {budget!r}; the model has {whole:,.0f}")
    if budget > whole:
        raise BudgetError(
            f"budget of {budget:,.0f} {cost.unit} exceeds the model's {whole:,.0f}: there is nothing to prune"
        )
    if budget < floor:
        least = {
            "blocks": f"{minimum.blocks} block(s)",
            "heads": f"{minimum.heads} head(s) of each kind a block",
            "ffn": f"{minimum.ffn} neuron(s) a block",
        }
        left = " and ".join(least[level] for level in LEVELS if level in levels)
        raise BudgetError(
            f"budget of {budget:,.0f} {cost.unit} is out of reach for {' + '.join(levels)}: the floor is "
            f"{floor:,.0f} with {left} left, {floor_cost(sizes, levels, EMPTY_LAYERS, cost):,.0f} with whole layers "
            f"emptied; raise the budget or cut more levels of {', '.join(LEVELS)}"
        )

"""Spending a budget: greedy tri-level selection by score per cost saved, and cuts with given counts.

Paper: sensitivity-aware tri-level pruning. All three levels compete in one queue: heads and neurons go in the order of
score per cost, and a block competes with its own score minus the damage already done inside it, per cost it still has.
Neurons are ranked one by one and rounded afterwards. Scores are never normalised per layer: in trials, that and ranking
groups of neurons chose worse units.

Simplified: damages add up. The caller corrects for interaction by scoring again after blocks are gone
(`prune.search`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np

from mobivid_core.errors import BudgetError, ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.costs import LinearCost, parameter_cost
from mobivid_core.prune.plan import LEVELS, PruningPlan
from mobivid_core.sensitivity.scores import UNIT_KINDS, Scores

_KINDS = UNIT_KINDS[1:]


@dataclass(frozen=True)
class Targets:
    """Counts of the pruned model: blocks in all, heads (of each kind) and FFN neurons per kept block."""

    blocks: int
    heads: int
    ffn: int

    @classmethod
    def of(cls, mobile: DiTConfig) -> Targets:
        """The counts of a uniform model such as `MOBILE`."""
        return cls(mobile.blocks, mobile.self_heads[0], mobile.ffn_widths[0])

    def units(self, kind: str) -> int:
        """Number of "self_heads", "cross_heads" or "ffn" in a block."""
        return self.ffn if kind == "ffn" else self.heads


def floor_cost(
    sizes: DiTConfig, levels: Sequence[str] = LEVELS, cost: LinearCost | None = None, *, least: int = 1
) -> float:
    """Cost (parameters, if `cost` is None) of the smallest model that pruning `levels` of `sizes` can reach.

    One block stays, and the `least` number of heads and neurons in each layer: 1 as plans leave, 0 for empty layers.
    """
    if not levels or not set(levels) <= set(LEVELS):
        raise ParameterError(f"unknown pruning levels {tuple(levels)}; use one or more of {LEVELS}")
    cost = cost or parameter_cost(sizes)
    blocks = []
    for *heads, neurons in sizes.widths:
        heads = [min(h, least) if "heads" in levels else h for h in heads]
        blocks.append(cost.block_total(*heads, min(neurons, least) if "ffn" in levels else neurons))
    return cost.fixed + (min(blocks) if "blocks" in levels else sum(blocks))


def plan_for_budget(
    scores: Scores,  # one score per unit of `sizes`
    sizes: DiTConfig,  # the model to be pruned
    budget: float,  # largest allowed cost of the pruned model, in the unit of `cost`
    levels: Sequence[str] = LEVELS,
    *,
    cost: LinearCost | None = None,  # the price list; parameters if None
    multiple: int = 1,  # FFN widths are rounded to this multiple (of the least important neurons, in steps)
    keep_blocks: Sequence[int] | None = None,  # already chosen; the others are gone and the "blocks" level is closed
) -> PruningPlan:
    """Remove the cheapest damage per cost saved until the model fits the budget.

    Raises:
        BudgetError: The budget is no finite number, lies below the floor of these levels, or above the model.
        ParameterError: Scores that do not fit or are not finite, a multiple below one, or blocks that are not there.
    """
    scores.check(sizes)
    if not _is_count(multiple):
        raise ParameterError(f"multiple must be a whole number above zero, got {multiple!r}; 1 leaves widths free")
    _check_blocks(keep_blocks, sizes)
    cost = cost or parameter_cost(sizes)
    _check_budget(sizes, budget, levels, cost)
    left = _Remainder(scores, sizes, cost, keep_blocks)
    queue = deque(sorted(_groups(scores, left.alive, levels, multiple, cost), key=lambda group: group.ratio))
    removed, cut_blocks = [], "blocks" in levels and keep_blocks is None
    while left.total > budget:
        while queue and not left.allows(queue[0]):
            queue.popleft()
        ratio, block = left.cheapest_block() if cut_blocks else (math.inf, None)
        if queue and ratio >= queue[0].ratio:
            removed.append(queue.popleft())
            left.change(removed[-1], -1)
        elif block is not None:
            left.alive.remove(block)
            left.total -= left.costs[block]
        else:
            raise BudgetError(
                f"budget of {budget:,.0f} {cost.unit} cannot be reached: {left.total:,.0f} are left after "
                f"removing every unit that levels {tuple(levels)}, multiple={multiple} and keep_blocks allow; raise "
                "the budget or loosen them"
            )
    for group in reversed(removed):  # the last removal, a block say, may have freed more than was needed
        if group.block in left.alive and left.total + group.price <= budget:
            left.change(group, 1)
    kept = {kind: tuple(tuple(sorted(units[b])) for b in left.alive) for kind, units in left.kept.items()}
    notes = {
        "method": "greedy", "scores": scores.estimator, "budget": budget, "unit": cost.unit, "levels": list(levels)
    }  # fmt: skip
    return PruningPlan(sizes, tuple(left.alive), **kept, notes=notes)


class _Group(NamedTuple):
    """Units of a layer that go together: a head, or neurons down to the next multiple."""

    block: int
    kind: str
    units: list[int]
    score: float
    price: float

    @property
    def ratio(self) -> float:
        return self.score / self.price


def _groups(
    scores: Scores, blocks: Sequence[int], levels: Sequence[str], multiple: int, cost: LinearCost
) -> Iterator[_Group]:
    """Everything that can go inside some blocks."""
    for kind in _KINDS:
        if ("ffn" if kind == "ffn" else "heads") not in levels:
            continue
        step = multiple if kind == "ffn" else 1
        for b in blocks:
            values = np.asarray(getattr(scores, kind)[b], dtype=float)
            order = np.argsort(values, kind="stable")
            # The first step brings the width to a multiple; later steps keep it there.
            for units in np.split(order, range(len(order) % step or step, len(order), step)):
                if len(units):
                    yield _Group(b, kind, units.tolist(), float(values[units].sum()), len(units) * cost.price(kind))


class _Remainder:
    """What is left of a model while units go."""

    def __init__(self, scores: Scores, sizes: DiTConfig, cost: LinearCost, keep_blocks: Sequence[int] | None) -> None:
        self.alive = sorted(range(sizes.blocks) if keep_blocks is None else keep_blocks)
        self.kept = {kind: [set(range(width)) for width in widths] for kind, widths in sizes.units.items()}
        self.scores, self.damage = np.asarray(scores.blocks, dtype=float), np.zeros(sizes.blocks)
        self.costs = np.array([cost.block_total(*widths) for widths in sizes.widths], dtype=float)
        self.total = cost.fixed + self.costs[self.alive].sum()

    def allows(self, group: _Group) -> bool:
        """Whether a group is there, and not all that its layer still has."""
        return group.block in self.alive and len(self.kept[group.kind][group.block]) > len(group.units)

    def cheapest_block(self) -> tuple[float, int | None]:
        """(score per cost, block): what removing the whole block adds to the damage already done inside it."""
        if len(self.alive) == 1:
            return math.inf, None
        ratio = np.maximum(self.scores - self.damage, 0)[self.alive] / self.costs[self.alive]
        return float(ratio.min()), self.alive[int(ratio.argmin())]

    def change(self, group: _Group, sign: int) -> None:
        """Take a group away (-1), or give it back (1)."""
        self.kept[group.kind][group.block] ^= set(group.units)
        self.damage[group.block] -= sign * group.score
        self.costs[group.block] += sign * group.price
        self.total += sign * group.price


def plan_for_targets(
    scores: Scores,  # one score per unit of `sizes`; the highest stay
    sizes: DiTConfig,  # the model to be pruned
    targets: Targets,
    *,
    keep_blocks: Sequence[int] | None = None,  # already chosen; otherwise those with the highest block score
    allocation: str = "per_block",
) -> PruningPlan:
    """A plan with given counts; a BudgetError where one is larger than the model or below one.

    The allocation "per_block" gives every block the target widths (the paper's cut); "global" spends the same totals of
    heads (self and cross together) and of neurons where the scores say, at least one in each layer.
    """
    scores.check(sizes)
    _check_targets(sizes, targets)
    _check_blocks(keep_blocks, sizes)
    if keep_blocks is None:
        keep_blocks = _highest(scores.blocks, targets.blocks)
    own = {kind: [getattr(scores, kind)[b] for b in keep_blocks] for kind in _KINDS}
    if allocation == "per_block":
        kept = {kind: tuple(_highest(v, targets.units(kind)) for v in values) for kind, values in own.items()}
    elif allocation == "global":
        n = len(keep_blocks)
        heads = _highest_in_all(own["self_heads"] + own["cross_heads"], targets.heads * 2 * n)
        ffn = _highest_in_all(own["ffn"], targets.ffn * n)
        kept = {"self_heads": heads[:n], "cross_heads": heads[n:], "ffn": ffn}
    else:
        raise ParameterError(f"unknown allocation {allocation!r}; use 'per_block' or 'global'")
    notes = {"method": f"targets, {allocation}", "scores": scores.estimator}
    return PruningPlan(sizes, tuple(int(b) for b in keep_blocks), **kept, notes=notes)


def uniform_plan(sizes: DiTConfig, targets: Targets) -> PruningPlan:
    """The same counts everywhere, evenly spaced, without looking at any score."""
    _check_targets(sizes, targets)
    blocks = _evenly(sizes.blocks, targets.blocks)
    kept = {
        kind: tuple(_evenly(widths[b], targets.units(kind)) for b in blocks) for kind, widths in sizes.units.items()
    }
    return PruningPlan(sizes, blocks, **kept, notes={"method": "uniform", "scores": "none"})


def _highest(values: np.ndarray, count: int) -> tuple[int, ...]:
    order = np.argsort(-np.asarray(values, dtype=float), kind="stable")
    return tuple(sorted(order[:count].tolist()))


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


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _check_blocks(keep_blocks: Sequence[int] | None, sizes: DiTConfig) -> None:
    given = [0] if keep_blocks is None else list(keep_blocks)
    if not given or len(set(given)) < len(given) or not set(given) <= set(range(sizes.blocks)):
        raise ParameterError(f"keep_blocks must be distinct blocks of 0..{sizes.blocks - 1}, at least one; got {given}")


def _check_targets(sizes: DiTConfig, targets: Targets) -> None:
    heads = min(*sizes.self_heads, *sizes.cross_heads)
    for name, limit in (("blocks", sizes.blocks), ("heads", heads), ("ffn", min(sizes.ffn_widths))):
        wanted = getattr(targets, name)
        if not _is_count(wanted) or wanted > limit:
            raise BudgetError(f"target of {wanted} {name} is impossible: the model allows 1 to {limit}")


def _check_budget(sizes: DiTConfig, budget: float, levels: Sequence[str], cost: LinearCost) -> None:
    floor, whole = floor_cost(sizes, levels, cost), cost.total(sizes)
    if isinstance(budget, bool) or not isinstance(budget, Real) or not math.isfinite(budget):
        raise BudgetError(f"a budget is a finite number of {cost.unit}, got {budget!r}; the model has {whole:,.0f}")
    if budget > whole:
        raise BudgetError(
            f"budget of {budget:,.0f} {cost.unit} exceeds the model's {whole:,.0f}: there is nothing to prune"
        )
    if budget < floor:
        least = {"blocks": "1 block(s)", "heads": "1 head(s) of each kind a block", "ffn": "1 neuron(s) a block"}
        left = " and ".join(least[level] for level in LEVELS if level in levels)
        raise BudgetError(
            f"budget of {budget:,.0f} {cost.unit} is out of reach for {' + '.join(levels)}: the floor is "
            f"{floor:,.0f} with {left} left, {floor_cost(sizes, levels, cost, least=0):,.0f} with whole layers "
            f"emptied; raise the budget or cut more levels of {', '.join(LEVELS)}"
        )

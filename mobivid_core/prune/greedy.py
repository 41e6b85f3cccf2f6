"""The queue of a greedy plan: blocks, heads and FFN neurons compete by damage per cost saved.

Paper: sensitivity-aware tri-level pruning. Heads and neurons are removed in the order of score per parameter. A
block competes with its own score minus the damage already done inside it, per parameter it still has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.costs import LinearCost
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.scores import UNIT_KINDS, Scores

KINDS = UNIT_KINDS[1:]
#: (score per cost, block, kind, indices that go together, their score).
Removal = tuple[float, int, str, list[int], float]


@dataclass(frozen=True)
class Counts:
    """Blocks in a model; heads (of each kind) and FFN neurons in each of its blocks."""

    blocks: int
    heads: int
    ffn: int

    def units(self, kind: str) -> int:
        """Number of "self_heads", "cross_heads" or "ffn" in a block."""
        return self.ffn if kind == "ffn" else self.heads


@dataclass(frozen=True)
class Minimum(Counts):
    """Least that a plan leaves."""

    blocks: int = 1
    heads: int = 1
    ffn: int = 1


#: What plans leave unless told otherwise.
SMALLEST = Minimum()
#: Whole attention or FFN layers may go; one block stays.
EMPTY_LAYERS = Minimum(blocks=1, heads=0, ffn=0)


class GreedyQueue:
    """Units of all alive blocks, cheapest damage per cost first; arguments as for `plan_for_budget`."""

    def __init__(
        self,
        scores: Scores,
        sizes: DiTConfig,
        cost: LinearCost,
        levels: Sequence[str],
        minimum: Minimum,
        multiple: int,
        keep_blocks: Sequence[int] | None,
    ) -> None:
        self.sizes, self.cost, self.minimum = sizes, cost, minimum
        self.block_scores = np.asarray(scores.blocks, dtype=float)
        self.alive = sorted(range(sizes.blocks) if keep_blocks is None else keep_blocks)
        self.cut_blocks = "blocks" in levels and keep_blocks is None
        self.kept = {k: [set(range(len(x))) for x in getattr(scores, k)] for k in KINDS}
        self.damage = np.zeros(sizes.blocks)
        self.block_cost = np.array(
            [cost.block_total(*w) for w in zip(sizes.self_heads, sizes.cross_heads, sizes.ffn_widths, strict=False)],
            dtype=float,
        )
        self.total = cost.fixed + self.block_cost[self.alive].sum()
        self.removed: list[Removal] = []
        self.units = sorted(self._units(scores, levels, multiple), key=lambda unit: unit[0])
        self.next = 0

    def _units(self, scores: Scores, levels: Sequence[str], multiple: int) -> list[Removal]:
        """Everything that can go inside the alive blocks."""
        units = []
        for kind in KINDS:
            if ("ffn" if kind == "ffn" else "heads") not in levels:
                continue
            step = multiple if kind == "ffn" else 1
            for b in self.alive:
                values = np.asarray(getattr(scores, kind)[b], dtype=float)
                order = np.argsort(values, kind="stable")
                if not len(order):
                    continue
                # The first step brings the width to a multiple; later steps keep it there.
                starts = [0, *range(len(order) % step or step, len(order), step)]
                for start, stop in zip(starts, [*starts[1:], len(order)], strict=False):
                    chosen = [int(i) for i in order[start:stop]]
                    score = float(values[chosen].sum())
                    units.append((score / (len(chosen) * self.cost.price(kind)), b, kind, chosen, score))
        return units

    def _cheapest_block(self) -> tuple[float, int]:
        """(score per cost, block): what removing the whole block adds to the damage already done inside it."""
        if not self.cut_blocks or len(self.alive) <= self.minimum.blocks:
            return float("inf"), -1
        alive = np.array(self.alive)
        ratio = np.maximum(self.block_scores[alive] - self.damage[alive], 0) / self.block_cost[alive]
        best = int(ratio.argmin())
        return float(ratio[best]), int(alive[best])

    def remove_cheapest(self) -> bool:
        """Remove one unit or block; False when nothing is left to remove."""
        while self.next < len(self.units):
            _, b, kind, chosen, _ = self.units[self.next]
            if b in self.alive and len(self.kept[kind][b]) - len(chosen) >= self.minimum.units(kind):
                break
            self.next += 1
        ratio, block = self._cheapest_block()
        if self.next == len(self.units) and block < 0:
            return False
        if self.next == len(self.units) or ratio < self.units[self.next][0]:
            self.alive.remove(block)
            self.total -= self.block_cost[block]
            return True
        _, b, kind, chosen, score = self.units[self.next]
        self.removed.append(self.units[self.next])
        self.next += 1
        self.kept[kind][b] -= set(chosen)
        self.damage[b] += score
        self._charge(b, -len(chosen) * self.cost.price(kind))
        return True

    def _charge(self, block: int, amount: float) -> None:
        self.block_cost[block] += amount
        self.total += amount

    def give_back(self, budget: float) -> None:
        """Put the best removed units back where the last removal (a whole block, say) freed more than was needed."""
        for _, b, kind, chosen, _ in reversed(self.removed):
            price = len(chosen) * self.cost.price(kind)
            if b in self.alive and self.total + price <= budget:
                self.kept[kind][b] |= set(chosen)
                self._charge(b, price)

    def plan(self, notes: dict) -> PruningPlan:
        """What is left."""
        kept = {k: tuple(tuple(sorted(self.kept[k][b])) for b in self.alive) for k in KINDS}
        return PruningPlan(self.sizes, tuple(self.alive), **kept, notes=notes)

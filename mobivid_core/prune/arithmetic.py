"""Budget arithmetic at any scale: the range of each level alone, and arms of equal size.

Reviewers asked for head-only and linear-only arms beside block-only. At the paper's size they cannot exist: removing
every head, or every FFN neuron, leaves more parameters than the mobile model has. They do exist at milder budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

import pandas as pd

from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.prune.plan import LEVELS
from mobivid_core.prune.planner import Targets, floor_cost, uniform_plan


def cut_table(server: DiTConfig, mobile: DiTConfig) -> pd.DataFrame:
    """Parameters after each level of the uniform models' cut alone, after all, and with the level's layers emptied."""
    whole, cut, goal = Targets.of(server), Targets.of(mobile), parameter_cost(server).total(mobile)
    rows = []
    for levels in (("blocks",), ("heads",), ("ffn",), LEVELS):
        targets = replace(whole, **{name: getattr(cut, name) for name in levels})
        left, floor = uniform_plan(server, targets).parameters, floor_cost(server, levels, least=0)
        reached = "yes" if floor <= goal else "no"
        rows.append((" + ".join(levels), *astuple(targets), left / 1e9, floor / 1e9, reached))
    columns = ("levels", "blocks", "heads", "FFN", "parameters, B", "floor, B", "reaches the mobile size")
    return pd.DataFrame(rows, columns=columns)


def matched_table(server: DiTConfig, budgets: Sequence[float]) -> pd.DataFrame:
    """Single-level arms nearest to each budget (in parameters) of a uniform model; FFN widths are multiples of 128."""
    cost, whole = parameter_cost(server), Targets.of(server)
    ranges = range(1, whole.blocks + 1), range(whole.heads + 1), range(0, whole.ffn + 1, 128)

    def total(counts: Targets) -> float:
        return cost.fixed + counts.blocks * cost.block_total(counts.heads, counts.heads, counts.ffn)

    rows = []
    for budget in budgets:
        row: dict[str, float] = {"budget, B": budget / 1e9}
        for name, choices in zip(LEVELS, ranges, strict=True):
            sizes = {n: total(replace(whole, **{name: n})) for n in choices}
            best = min(sizes, key=lambda n: abs(sizes[n] - budget))
            row |= {f"{name} alone": best, f"{name} alone, B": sizes[best] / 1e9}
        rows.append(row)
    return pd.DataFrame(rows)


def blocks_nearest(server: DiTConfig, budget: float) -> int:
    """Number of whole blocks of a uniform model whose size is nearest to the budget (which it may exceed a little)."""
    cost = parameter_cost(server)
    return max(1, min(server.blocks, round((budget - cost.fixed) / cost.block_total(*server.widths[0]))))

"""Budget arithmetic at any scale: the range of each level alone, and arms of equal size.

Reviewers asked for head-only and linear-only arms beside block-only. At the paper's size they cannot exist: removing
every head, or every FFN neuron, leaves more parameters than the mobile model has. They do exist at milder budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.costs import LinearCost, parameter_cost
from mobivid_core.prune.greedy import EMPTY_LAYERS
from mobivid_core.prune.planner import Targets, floor_cost, uniform_plan


def cut_table(server: DiTConfig, mobile: DiTConfig) -> pd.DataFrame:
    """Parameters after each level of the cut alone, after all of them, and the least each level could reach.

    `server` and `mobile` are the uniform models before and after the whole cut. One row a set of levels: parameters in
    B after the cut, the floor in B with whole layers emptied (block level: one block left), and whether the mobile size
    is within reach.
    """
    whole, cut, cost = Targets.of(server), Targets.of(mobile), parameter_cost(server)
    goal = cost.total(mobile)
    rows = []
    for levels in (("blocks",), ("heads",), ("ffn",), ("blocks", "heads", "ffn")):
        targets = replace(whole, **{name: getattr(cut, name) for name in levels})
        floor = floor_cost(server, levels, EMPTY_LAYERS)
        rows.append(
            {
                "levels": " + ".join(levels),
                "blocks": targets.blocks,
                "heads": targets.heads,
                "FFN": targets.ffn,
                "parameters, B": uniform_plan(server, targets).parameters / 1e9,
                "floor, B": floor / 1e9,
                "reaches the mobile size": "yes" if floor <= goal else "no",
            }
        )
    return pd.DataFrame(rows)


def matched_table(server: DiTConfig, budgets: Sequence[float]) -> pd.DataFrame:
    """Single-level arms nearest to each budget (in parameters) of a uniform model.

    One row a budget: for each level the count kept and the parameters in B; FFN widths are multiples of 128.
    """
    cost, whole, rows = parameter_cost(server), Targets.of(server), []
    for budget in budgets:
        row: dict[str, float] = {"budget, B": budget / 1e9}
        for name, choices in (
            ("blocks", range(1, whole.blocks + 1)),
            ("heads", range(whole.heads + 1)),
            ("ffn", range(0, whole.ffn + 1, 128)),
        ):
            sizes = {n: _total(cost, replace(whole, **{name: n})) for n in choices}
            best = min(sizes, key=lambda n: abs(sizes[n] - budget))
            row |= {f"{name} alone": best, f"{name} alone, B": sizes[best] / 1e9}
        rows.append(row)
    return pd.DataFrame(rows)


def blocks_nearest(server: DiTConfig, budget: float) -> int:
    """Number of whole blocks of a uniform model whose size is nearest to the budget (which it may exceed a little)."""
    cost = parameter_cost(server)
    block = cost.block_total(server.self_heads[0], server.cross_heads[0], server.ffn_widths[0])
    return max(1, min(server.blocks, round((budget - cost.fixed) / block)))


def _total(cost: LinearCost, counts: Targets) -> float:
    """Cost of a uniform model; heads and neurons may be 0."""
    return cost.fixed + counts.blocks * cost.block_total(counts.heads, counts.heads, counts.ffn)

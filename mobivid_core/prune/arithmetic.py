"""Budget arithmetic at any scale: the range of each level alone, and arms of equal size.

Reviewers asked for head-only and linear-only arms beside block-only. At the paper's size they cannot exist: removing
every head, or every FFN neuron, leaves more parameters than the mobile model has. They do exist at milder budgets.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.prune.greedy import EMPTY_LAYERS
from mobivid_core.prune.planner import Targets, floor_cost, uniform_plan


def cut_table(server: DiTConfig, mobile: DiTConfig) -> pd.DataFrame:
    """Parameters after each level of the cut alone, after all of them, and the least each level could reach.

    Args:
        server: A uniform model.
        mobile: The uniform model after the whole cut.

    Returns:
        One row a set of levels: parameters in B after the cut, the floor in B with whole layers emptied (block level:
        one block left), and whether the mobile size is within reach.
    """
    whole, cut, cost = _targets(server), Targets.of(mobile), parameter_cost(server)
    goal = cost.total(mobile)
    rows = []
    for levels in (("blocks",), ("heads",), ("ffn",), ("blocks", "heads", "ffn")):
        targets = Targets(*(getattr(cut if name in levels else whole, name) for name in ("blocks", "heads", "ffn")))
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


def matched_table(server: DiTConfig, budgets: Sequence[float], multiple: int = 128) -> pd.DataFrame:
    """Single-level arms nearest to each budget.

    Args:
        server: A uniform model.
        budgets: Parameters.
        multiple: FFN widths tried.

    Returns:
        One row a budget: for each level the count kept and the parameters in B.
    """
    cost, whole, rows = parameter_cost(server), _targets(server), []
    for budget in budgets:
        row: dict[str, float] = {"budget, B": budget / 1e9}
        for name, choices in (
            ("blocks", range(1, whole.blocks + 1)),
            ("heads", range(whole.heads + 1)),
            ("ffn", range(0, whole.ffn + 1, multiple)),
        ):
            sizes = {n: cost.total(_with(server, whole, name, n)) for n in choices}
            best = min(sizes, key=lambda n: abs(sizes[n] - budget))
            row |= {f"{name} alone": best, f"{name} alone, B": sizes[best] / 1e9}
        rows.append(row)
    return pd.DataFrame(rows)


def blocks_nearest(server: DiTConfig, budget: float) -> int:
    """Number of whole blocks of a uniform model whose size is nearest to the budget (it may exceed it a little)."""
    cost = parameter_cost(server)
    block = cost.block_total(server.self_heads[0], server.cross_heads[0], server.ffn_widths[0])
    return max(1, min(server.blocks, round((budget - cost.fixed) / block)))


def _targets(sizes: DiTConfig) -> Targets:
    return Targets(sizes.blocks, sizes.self_heads[0], sizes.ffn_widths[0])


def _with(server: DiTConfig, whole: Targets, name: str, count: int) -> DiTConfig:
    """Sizes of `server` with one count changed (zero heads and widths allowed)."""
    counts = {"blocks": whole.blocks, "heads": whole.heads, "ffn": whole.ffn} | {name: count}
    return DiTConfig.uniform(
        blocks=counts["blocks"],
        heads=counts["heads"],
        ffn=counts["ffn"],
        hidden=server.hidden,
        head_dim=server.head_dim,
        in_channels=server.in_channels,
        text_dim=server.text_dim,
    )

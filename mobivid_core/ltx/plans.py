"""Plans for a large transformer by parameters, FLOPs, bytes or a phone's predicted seconds, and what cutting leaves.

Paper: tri-level pruning to 0.9 B. The planner is `prune.planner`; this module prices units and writes what was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mobivid_core.errors import ParameterError
from mobivid_core.files import write_json, write_text
from mobivid_core.ltx.checkpoint import save_transformer
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, dit_counts
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.ltx import MobiVidLTXTransformer
from mobivid_core.phone.devices import find_device
from mobivid_core.phone.latency import latency_cost
from mobivid_core.prune.costs import LinearCost, flop_cost, parameter_cost
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import plan_for_budget
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.scores import Scores

#: What a budget may be in.
UNITS = ("params", "flops", "bytes", "seconds")
PLAN, CARD = "plan.json", "README.md"


def cost_of(sizes: DiTConfig, unit: str, grid: Grid, text_tokens: int, *, chip: str = "A18 Pro") -> LinearCost:
    """Prices of a block, a head and a neuron in one of `UNITS`.

    "flops" and "seconds" (predicted for the Neural Engine of `chip`) are of one forward pass of a latent `grid`
    (t, h, w) with `text_tokens` at batch 1, "bytes" of 16-bit weights.

    Raises:
        ParameterError: Unknown unit or chip.
    """
    if unit == "params":
        return parameter_cost(sizes)
    if unit == "flops":
        return flop_cost(sizes, grid[0] * grid[1] * grid[2], text_tokens)
    if unit == "bytes":
        params = parameter_cost(sizes)
        prices = ("fixed", "block", "self_head", "cross_head", "neuron")
        return replace(params, unit="bytes", **{k: 2 * getattr(params, k) for k in prices})
    if unit == "seconds":
        widths = sizes.widths_alone()
        return latency_cost(widths, find_device(chip), grid, widths)
    raise ParameterError(f"unknown unit {unit!r}; use one of {', '.join(UNITS)}")


def make_plan(
    sizes: DiTConfig, scores: Scores, cost: LinearCost, budget: float, *, levels: Sequence[str],
    multiple: int, data: str,
) -> PruningPlan:  # fmt: skip
    """Cut the cheapest damage until the budget holds.

    The budget is in the unit of `cost`; up to 1 it is a share of the whole model. FFN widths are rounded to `multiple`;
    `data` is one line on what was scored, for the notes.

    Raises:
        BudgetError: The budget cannot be reached.
        ParameterError: Scores that do not fit.
    """
    budget = budget * cost.total(sizes) if 0 < budget <= 1 else budget
    plan = plan_for_budget(scores, sizes, budget, levels, cost=cost, multiple=multiple)
    facts = {"score_notes": scores.notes, "data": data, "left": cost.total(plan.sizes)}
    return replace(plan, notes=plan.notes | facts)


def cut(model: MobiVidTransformer3DModel, plan: PruningPlan, out: Path, source: str, grid: Grid, tokens: int) -> None:
    """Write the pruned model with its plan and card.

    `source` is one line on where the weights come from; the card names FLOPs of the latent `grid` and text `tokens`.

    Raises:
        ParameterError: The plan belongs to another model.
        RunError: The disk is full or read-only.
    """
    save_transformer(MobiVidLTXTransformer.of(prune(model, plan)), out)
    plan.save(out / PLAN)
    write_card(out, plan, source, grid, tokens)


def write_card(out: Path, plan: PruningPlan, source: str, grid: Grid, tokens: int, history: Sequence[str] = ()) -> None:
    """Write the folder's card: what was cut, with which scores, on what data, and what was done to it since."""
    before, after = (dit_counts(s, grid, tokens)["total"] for s in (plan.source, plan.sizes))
    small, notes = plan.sizes, plan.notes
    rows = [
        f"| {b} | {own} | {cross} | {ffn} |"
        for b, own, cross, ffn in zip(
            plan.keep_blocks, small.self_heads, small.cross_heads, small.ffn_widths, strict=True
        )
    ]
    text = f"""# A pruned video transformer

Made from {source}. Load it with `mobivid_core.models.ltx.MobiVidLTXTransformer.from_pretrained(FOLDER)` and hand it
to `diffusers.LTXPipeline` as `transformer`.

| | before | after |
|---|---|---|
| parameters | {before.params:,} | {after.params:,} |
| TFLOP a pass of {" x ".join(map(str, grid))} cells | {before.flops / 1e12:.3f} | {after.flops / 1e12:.3f} |
| blocks | {plan.source.blocks} | {small.blocks} |

Scores: {notes.get("scores", "none")}; settings {notes.get("score_notes", {})}; data: {notes.get("data") or "not said"}.
Budget: {notes.get("budget", 0):,.0f} {notes.get("unit", "")}; levels {", ".join(notes.get("levels", []))}.
Removed blocks: {", ".join(map(str, plan.removed_blocks)) or "none"}. `{PLAN}` lists every unit that stays.

Since then: {"; ".join(history) or "nothing: these are the source's weights, not refitted or trained"}.

| block of the source | self heads | cross heads | FFN neurons |
|---|---|---|---|
""" + "\n".join(rows)
    write_text(out / CARD, text + "\n")
    write_json(out / "history.json", {"source": source, "steps": list(history)})

"""Prices for a plan by parameters, FLOPs, bytes or a phone's predicted seconds, and what cutting leaves.

Paper: tri-level pruning to 0.9 B. The planner is `prune.planner`; this module prices units and writes what was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

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

#: What a budget may be in.
UNITS = ("params", "flops", "bytes", "seconds")
PLAN, HISTORY = "plan.json", "history.json"


def cost_of(sizes: DiTConfig, unit: str, grid: Grid, text_tokens: int, chip: str) -> LinearCost:
    """Prices of a block, a head and a neuron in one of `UNITS`.

    "flops" and "seconds" (predicted for the Neural Engine of `chip`) are of one forward pass of a latent `grid`
    (t, h, w) with `text_tokens` at batch 1, "bytes" of 16-bit weights. A ParameterError names an unknown chip.
    """
    if unit == "flops":
        return flop_cost(sizes, grid[0] * grid[1] * grid[2], text_tokens)
    if unit == "seconds":
        widths = sizes.widths_alone()
        return latency_cost(widths, find_device(chip), grid, widths)
    params = parameter_cost(sizes)
    prices = ("fixed", "block", "self_head", "cross_head", "neuron")
    twice = {k: 2 * getattr(params, k) for k in prices}
    return replace(params, unit="bytes", **twice) if unit == "bytes" else params


def write_student(
    student: MobiVidTransformer3DModel, plan: PruningPlan, out: Path, source: str, done: Sequence[str], grid: Grid,
    tokens: int, dtype: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Write a pruned model with its plan and a card: what was cut, by which scores of what data, and what came since.

    `source` is one line on where the weights come from, `done` the steps since; the card names FLOPs of the latent
    `grid` and text `tokens`. `dtype` is of the saved weights; None: the student's.
    """
    save_transformer(MobiVidLTXTransformer.of(student), out, dtype)
    plan.save(out / PLAN)
    write_json(out / HISTORY, {"source": source, "steps": list(done)})
    before, after = (dit_counts(s, grid, tokens)["total"] for s in (plan.source, plan.sizes))
    small, notes = plan.sizes, plan.notes
    widths = zip(plan.keep_blocks, small.self_heads, small.cross_heads, small.ffn_widths, strict=True)
    rows = "".join(f"| {' | '.join(map(str, row))} |\n" for row in widths)
    card = f"""# A pruned video transformer

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

Since then: {"; ".join(done) or "nothing: these are the source's weights, not refitted or trained"}.

| block of the source | self heads | cross heads | FFN neurons |
|---|---|---|---|
"""
    write_text(out / "README.md", card + rows)

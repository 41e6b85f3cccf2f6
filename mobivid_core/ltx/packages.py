"""Core ML packages of a checkpoint, in parts below the size that a phone loads, each verified on Linux.

Paper: the on-device section. The transformer alone: decoder and text encoder of LTX-Video are not converted here.
The tanh GELU of LTX-Video is written out where the graph is captured (`models.attention.Gelu`), so it stays exact.
"""

from __future__ import annotations

from pathlib import Path

import torch

from mobivid_core.coreml.bundle import STEPS, timestep_tables, write_bundle
from mobivid_core.coreml.graphs import Graph, dit_chunks
from mobivid_core.coreml.steps import DiTStep, host_modulation
from mobivid_core.coreml.verify import Verification, convert_and_verify
from mobivid_core.flow.sampling import textbook_sigmas
from mobivid_core.models.counts import Grid
from mobivid_core.models.dit import MobiVidTransformer3DModel


def one_block(model: MobiVidTransformer3DModel, index: int, grid: Grid, text_tokens: int) -> Graph:
    """Block `index` alone, on random token states."""
    step = DiTStep(model, grid, range(index, index + 1))
    for name in ("proj_in", "caption_projection", "proj_out"):
        if hasattr(step, name):
            delattr(step, name)
    step.enters = step.leaves = False  # whichever block it is, it takes and gives token states
    generator, hidden = torch.Generator().manual_seed(0), model.config.hidden
    inputs = {
        "tokens": torch.randn(1, grid[0] * grid[1] * grid[2], hidden, generator=generator),
        "projected_text": torch.randn(1, text_tokens, hidden, generator=generator),
        "text_mask": torch.zeros(1, text_tokens),
        "modulation": host_modulation(model, torch.tensor([500.0]))[:, 6 * index : 6 * index + 6],
    }
    return Graph(f"block{index}", step, inputs, ("tokens_out", "text_out"))


@torch.no_grad()
def export(
    model: MobiVidTransformer3DModel, out: Path, grid: Grid, text_tokens: int, block: int | None, frames: int,
    source: str,
) -> list[Verification]:  # fmt: skip
    """Convert a float32 transformer, or one `block` of it, and verify each package.

    The weights are rounded to float16 in place; `grid` (t, h, w) and `text_tokens` are fixed in the packages. `out`
    gets packages, tables and manifest, which names `frames` of the clip and `source` of the weights.
    """
    parts = dit_chunks(model, grid, text_tokens) if block is None else [one_block(model, block, grid, text_tokens)]
    done = []
    for graph in parts:
        made = convert_and_verify(graph, out)
        done.append(made)
        print(
            f"{graph.name}: {made.package.megabytes:,.1f} MB in {made.package.seconds:.0f} s; relative error "
            f"{made.fp32_error:.1e} (float32), {made.fp16_error:.1e} (float16)"
        )
    runs = {made.package.path.name: STEPS for made in done}
    write_bundle(out, done, timestep_tables(model, textbook_sigmas(STEPS)), source=source, runs=runs, frames=frames)
    return done

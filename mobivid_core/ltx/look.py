"""Inspect a checkpoint: what it is, what it costs and which devices it fits.

Paper: Table 1 and the section on deployment, for a model of your own. Only file headers are read.
"""

from __future__ import annotations

import pandas as pd

from mobivid_core.ltx.checkpoint import Source, stored_tensors
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, dit_counts
from mobivid_core.phone.devices import NEURAL_ENGINE, load_devices
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.phone.fit import APP_SHARE
from mobivid_core.phone.roofline import clip_seconds, clip_stages
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.prune.plan import LEVELS
from mobivid_core.prune.planner import floor_cost

#: Bytes a parameter of AdamW training in float32: weight, gradient and two moments.
TRAINING_BYTES = 16


def inspect(source: Source, grid: Grid, text_tokens: int) -> str:
    """A page on a checkpoint and a forward pass of it; a CheckpointError where a weight file is missing or torn."""
    s, total = source.sizes, dit_counts(source.sizes, grid, text_tokens)["total"]
    stored_gb = sum(tensor.nbytes for tensor in stored_tensors(source.folder).values()) / 1e9
    lines = [
        f"{source.folder}: {source.config['_class_name']}, {total.params:,} parameters, {stored_gb:.2f} GB on disk",
        f"{s.blocks} blocks; self heads {_span(s.self_heads)}, cross heads {_span(s.cross_heads)}, FFN "
        f"{_span(s.ffn_widths)}; hidden {s.hidden}, head width {s.head_dim}, text width {s.text_dim}",
        f"clip of {' x '.join(map(str, grid))} latent cells = {grid[0] * grid[1] * grid[2]} tokens, "
        f"{text_tokens} text tokens: {total.flops / 1e12:.3f} TFLOP a forward pass",
    ]
    shown = {
        "Layers": _kinds(s, grid, text_tokens),
        "Floors of pruning": _floors(s),
        "Fits (derived)": _fits(s, grid, text_tokens),
    }
    for title, table in shown.items():
        lines += ["", title, table.to_string(index=False, float_format=lambda x: f"{x:,.3f}", na_rep="")]
    return "\n".join(lines)


def _kinds(sizes: DiTConfig, grid: Grid, text_tokens: int) -> pd.DataFrame:
    """Parameters, FLOPs and bytes by layer kind, of one forward pass."""
    rows = [
        (kind, c.params, c.flops / 1e12, c.weight_bytes / 1e6, c.peak_bytes / 1e6, c.traffic_bytes / 1e6)
        for kind, c in dit_counts(sizes, grid, text_tokens).items()
    ]
    columns = ["layers", "parameters", "TFLOP", "weights (MB)", "peak (MB)", "traffic (MB)"]
    return pd.DataFrame(rows, columns=columns)


def _floors(sizes: DiTConfig) -> pd.DataFrame:
    """The smallest model that each set of levels reaches, in parameters."""
    rows = [
        (" + ".join(levels), floor_cost(sizes, levels) / 1e6, floor_cost(sizes, levels, least=0) / 1e6)
        for levels in (*((level,) for level in LEVELS), ("heads", "ffn"), LEVELS)
    ]
    return pd.DataFrame(rows, columns=["levels cut", "floor (M)", "with layers emptied (M)"])


def _fits(sizes: DiTConfig, grid: Grid, text_tokens: int) -> pd.DataFrame:
    """Devices: whether weights and activations fit, and the predicted seconds of a forward pass (derived)."""
    total, rows = dit_counts(sizes, grid, text_tokens)["total"], []
    stages, running = clip_stages(sizes, grid, text_tokens=text_tokens, steps=1), total.weight_bytes + total.peak_bytes
    for device in (device for device in load_devices() if device.ram_gb is not None):
        room = device.ram_gb * 1e9 * (APP_SHARE if device.name.startswith("iPhone") else 1.0)
        needed = {
            "runs (16 bits)": running,
            "runs (4 bits)": running - 0.75 * total.weight_bytes,
            "trains (AdamW)": TRAINING_BYTES * total.params,
        }
        fits = {column: "yes" if size < room else "no" for column, size in needed.items()}
        timed = device.engine == NEURAL_ENGINE and device.tflops
        seconds = clip_seconds(stages, device, fit_efficiency().typical) if timed else None
        facts = {"device": device.name, "engine": device.engine, "memory (GB)": device.ram_gb}
        rows.append(facts | fits | {"s a pass": seconds})
    return pd.DataFrame(rows)


def _span(widths: tuple[int, ...]) -> str:
    low, high = min(widths), max(widths)
    return str(low) if low == high else f"{low} to {high}"


def sizes_line(sizes: DiTConfig) -> str:
    """A model's widths in one line."""
    return (
        f"{sizes.blocks} blocks, {_span(sizes.self_heads)} self heads, {_span(sizes.cross_heads)} cross heads, "
        f"{_span(sizes.ffn_widths)} neurons: {int(parameter_cost(sizes).total(sizes)):,} parameters"
    )

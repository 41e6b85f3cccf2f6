"""Inspect a checkpoint: what it is, what it costs and which devices it fits.

Paper: Table 1 and the section on deployment, for a model of your own. Only file headers are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mobivid_core.ltx.checkpoint import Source, Weights
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, LayerCount, dit_counts
from mobivid_core.phone.devices import NEURAL_ENGINE, Device, load_devices
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.phone.roofline import clip_seconds, clip_stages
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.prune.plan import LEVELS
from mobivid_core.prune.planner import floor_cost

#: Bytes a parameter of AdamW training in float32: weight, gradient and two moments.
TRAINING_BYTES = 16
#: Share of a phone's memory that one app may take, as a rule of thumb (assumed).
APP_SHARE = 0.5


@dataclass(frozen=True)
class Look:
    """An inspected checkpoint."""

    source: Source
    grid: Grid
    text_tokens: int
    stored_bytes: int
    counts: dict[str, LayerCount]  # per layer kind and "total"

    def kinds(self) -> pd.DataFrame:
        """Parameters, FLOPs and bytes by layer kind, of one forward pass."""
        rows = [
            {
                "layers": kind,
                "parameters": c.params,
                "TFLOP": c.flops / 1e12,
                "weights (MB)": c.weight_bytes / 1e6,
                "peak (MB)": c.peak_bytes / 1e6,
                "traffic (MB)": c.traffic_bytes / 1e6,
            }
            for kind, c in self.counts.items()
        ]
        return pd.DataFrame(rows)

    def floors(self) -> pd.DataFrame:
        """The smallest model that each set of levels reaches, in parameters."""
        sizes, cost = self.source.sizes, parameter_cost(self.source.sizes)
        sets = [(level,) for level in LEVELS] + [("heads", "ffn"), LEVELS]
        rows = [
            {
                "levels cut": " + ".join(levels),
                "floor (M)": floor_cost(sizes, levels, cost) / 1e6,
                "with layers emptied (M)": floor_cost(sizes, levels, cost, least=0) / 1e6,
            }
            for levels in sets
        ]
        return pd.DataFrame(rows)

    def fits(self) -> pd.DataFrame:
        """Devices: whether weights and activations fit, and the predicted seconds of a forward pass (derived)."""
        total, rows = self.counts["total"], []
        running = (total.weight_bytes + total.peak_bytes) / 1e9
        for device in load_devices():
            if device.ram_gb is None:
                continue
            room = device.ram_gb * (APP_SHARE if device.name.startswith("iPhone") else 1.0)
            rows.append({
                "device": device.name, "engine": device.engine, "memory (GB)": device.ram_gb,
                "runs (16 bits)": "yes" if running < room else "no",
                "runs (4 bits)": "yes" if running - 0.75 * total.weight_bytes / 1e9 < room else "no",
                "trains (AdamW)": "yes" if TRAINING_BYTES * total.params / 1e9 < room else "no",
                "s a pass": self._seconds(device),
            })  # fmt: skip
        return pd.DataFrame(rows)

    def _seconds(self, device: Device) -> float | None:
        if device.engine != NEURAL_ENGINE or not device.tflops:
            return None
        stages = clip_stages(self.source.sizes, self.grid, text_tokens=self.text_tokens, steps=1)
        return clip_seconds(stages, device, fit_efficiency().typical)

    def __str__(self) -> str:
        s, total = self.source.sizes, self.counts["total"]
        cells = " x ".join(map(str, self.grid))
        lines = [
            f"{self.source.folder}: {self.source.config.get('_class_name')}, {total.params:,} parameters, "
            f"{self.stored_bytes / 1e9:.2f} GB on disk",
            f"{s.blocks} blocks; self heads {_span(s.self_heads)}, cross heads {_span(s.cross_heads)}, FFN "
            f"{_span(s.ffn_widths)}; hidden {s.hidden}, head width {s.head_dim}, text width {s.text_dim}",
            f"clip of {cells} latent cells = {self.grid[0] * self.grid[1] * self.grid[2]} tokens, "
            f"{self.text_tokens} text tokens: {total.flops / 1e12:.3f} TFLOP a forward pass",
        ]
        shown = {"Layers": self.kinds(), "Floors of pruning": self.floors(), "Fits (derived)": self.fits()}
        for title, table in shown.items():
            lines += ["", title, table.to_string(index=False, float_format=lambda x: f"{x:,.3f}", na_rep="")]
        return "\n".join(lines)


def inspect(source: Source, grid: Grid, text_tokens: int) -> Look:
    """Look at a checkpoint; see `Look`.

    Raises:
        CheckpointError: A weight file is missing or torn.
    """
    weights = Weights(source.folder)
    counts = dit_counts(source.sizes, grid, text_tokens)
    return Look(source, grid, text_tokens, weights.bytes(), counts)


def _span(widths: tuple[int, ...]) -> str:
    low, high = min(widths), max(widths)
    return str(low) if low == high else f"{low} to {high}"


def sizes_line(sizes: DiTConfig) -> str:
    """A model's widths in one line."""
    return (
        f"{sizes.blocks} blocks, {_span(sizes.self_heads)} self heads, {_span(sizes.cross_heads)} cross heads, "
        f"{_span(sizes.ffn_widths)} neurons: {int(parameter_cost(sizes).total(sizes)):,} parameters"
    )

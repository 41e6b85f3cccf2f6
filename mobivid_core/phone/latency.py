"""Predicted device latency as a pruning budget: seconds of a block, a head and a neuron of the paper's model.

Paper: pruned for a phone's speed, with a budget in parameters. The roofline gives seconds for each unit of the
reconstructed server model; a unit of the miniature costs as much as the units that it stands for. Simplified: finite
differences at the unpruned model, so that the price list is linear.
"""

from __future__ import annotations

from dataclasses import replace

from mobivid_core.models.config import SERVER, DiTConfig
from mobivid_core.models.counts import Grid
from mobivid_core.phone.devices import Device
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.phone.roofline import clip_seconds, clip_stages
from mobivid_core.prune.costs import LinearCost


def latency_cost(sizes: DiTConfig, device: Device, grid: Grid, server: DiTConfig = SERVER) -> LinearCost:
    """Seconds of one forward pass of the server model on a device, spread over the units of a model of `sizes`.

    Args:
        sizes: The model to be pruned: the server itself, or a uniform miniature of the same proportions.
        device: With a known float16 peak.
        grid: Latent grid (t, h, w) of the server's clip.
        server: What the miniature stands for.
    """
    efficiency = fit_efficiency().typical

    def seconds(config: DiTConfig) -> float:
        return clip_seconds(clip_stages(config, grid, steps=1), device, efficiency)

    whole, n = seconds(server), server.blocks
    fewer = {
        "self_heads": replace(server, self_heads=tuple(h - 1 for h in server.self_heads)),
        "cross_heads": replace(server, cross_heads=tuple(h - 1 for h in server.cross_heads)),
        "ffn_widths": replace(server, ffn_widths=tuple(f - 64 for f in server.ffn_widths)),
    }
    head, cross, neurons = ((whole - seconds(config)) / n for config in fewer.values())
    shorter = {k: getattr(server, k)[1:] for k in ("self_heads", "cross_heads", "ffn_widths")}
    block = whole - seconds(replace(server, **shorter))
    bare = block - server.self_heads[0] * head - server.cross_heads[0] * cross - server.ffn_widths[0] * neurons / 64
    per_block = n / sizes.blocks
    return LinearCost(
        unit="seconds",
        fixed=whole - n * block,
        block=per_block * max(bare, 0.0),
        self_head=per_block * head * server.self_heads[0] / sizes.self_heads[0],
        cross_head=per_block * cross * server.cross_heads[0] / sizes.cross_heads[0],
        neuron=per_block * neurons / 64 * server.ffn_widths[0] / sizes.ffn_widths[0],
    )

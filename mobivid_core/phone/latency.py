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

#: Units of a block -> how many of them one difference removes from each block.
_KINDS = {"self_heads": 1, "cross_heads": 1, "ffn_widths": 64}


def latency_cost(sizes: DiTConfig, device: Device, grid: Grid, server: DiTConfig = SERVER) -> LinearCost:
    """Seconds of one forward pass of the server model on a device, spread over the units of a model of `sizes`.

    The model to be pruned is the `server` itself, or a uniform miniature that stands for it; `grid` (t, h, w) is the
    latent grid of the server's clip, and the device's float16 peak is known.
    """
    efficiency = fit_efficiency().typical

    def seconds(config: DiTConfig) -> float:
        return clip_seconds(clip_stages(config, grid, steps=1), device, efficiency)

    whole, n = seconds(server), server.blocks
    block = bare = whole - seconds(replace(server, **{kind: getattr(server, kind)[1:] for kind in _KINDS}))
    per_block, prices = n / sizes.blocks, []
    for kind, removed in _KINDS.items():
        widths = getattr(server, kind)
        unit = (whole - seconds(replace(server, **{kind: tuple(w - removed for w in widths)}))) / n / removed
        bare -= widths[0] * unit
        prices.append(per_block * unit * widths[0] / getattr(sizes, kind)[0])
    return LinearCost("seconds", whole - n * block, per_block * max(bare, 0.0), *prices)

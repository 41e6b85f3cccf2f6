"""Seconds of a clip on a device: each matrix product at the slower of its arithmetic and its memory traffic.

Paper: 15 frames/s on an iPhone 16 Pro Max (data/paper claim C01); here follows which efficiency that speed needs. Each
operation takes max(FLOPs / (efficiency x peak), bytes / bandwidth) seconds.

Simplified: operations run one after the other at one efficiency; element-wise ones are fused into their neighbours; no
thermal throttling, no compilation or loading time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, LayerCount
from mobivid_core.phone.devices import Device

_HALF = 2  # bytes of a float16


@dataclass(frozen=True)
class Stage:
    """One operation (or a whole network whose operations are not told apart), done `repeats` times a clip."""

    name: str  # "FFN: up", "decoder", ...
    tflop: float  # work of one run in 1e12 FLOPs
    gigabytes: float  # memory traffic of one run in 1e9 bytes
    repeats: int = 1

    @property
    def kind(self) -> str:
        """Layer kind it belongs to: the name's first word, or the name of a whole network."""
        return self.name.split(":")[0]


def clip_stages(
    cfg: DiTConfig, grid: Grid, *, text_tokens: int = 77, steps: int = 4, guidance: bool = False,
    decoder: LayerCount | None = None, text_encoder: LayerCount | None = None,
) -> list[Stage]:  # fmt: skip
    """The operations of one clip of a latent `grid` (t, h, w).

    Text encoder and decoder, where given, run once, the transformer's products in every pass; with `guidance` there are
    two passes a step. Equal products are one stage with more repeats. The timestep's MLP runs on the host and is left
    out.
    """
    passes = steps * (2 if guidance else 1)
    seen = Counter(_products(cfg, grid[0] * grid[1] * grid[2], text_tokens))
    stages = [] if text_encoder is None else [stage_of("text encoder", text_encoder)]
    stages += [Stage(name, flops / 1e12, size / 1e9, passes * n) for (name, flops, size), n in seen.items()]
    return stages + ([] if decoder is None else [stage_of("decoder", decoder)])


def stage_of(name: str, count: LayerCount, repeats: int = 1) -> Stage:
    """A stage from counts."""
    return Stage(name, count.flops / 1e12, count.traffic_bytes / 1e9, repeats)


def stage_seconds(stage: Stage, device: Device, efficiency: float) -> float:
    """Seconds of all repeats of a stage; with an unknown peak only the bandwidth's lower bound is left."""
    if not 0 < efficiency <= 1:
        raise ParameterError(f"efficiency must lie in (0, 1], got {efficiency}")
    compute = 0.0 if device.tflops is None else stage.tflop / (efficiency * device.tflops)
    memory = 0.0 if device.gb_s is None else stage.gigabytes / device.gb_s
    return stage.repeats * max(compute, memory)


def clip_seconds(stages: Sequence[Stage], device: Device, efficiency: float) -> float:
    """Seconds of a whole clip."""
    return sum(stage_seconds(stage, device, efficiency) for stage in stages)


def seconds_by_kind(stages: Sequence[Stage], device: Device, efficiency: float) -> dict[str, float]:
    """Seconds a clip of each layer kind, in the order of the stages."""
    kinds: dict[str, float] = {}
    for stage in stages:
        kinds[stage.kind] = kinds.get(stage.kind, 0.0) + stage_seconds(stage, device, efficiency)
    return kinds


def required_efficiency(stages: Sequence[Stage], device: Device, frames: int, fps: float) -> float:
    """Efficiency at which a clip reaches `fps`; above 1, or infinite where bandwidth alone forbids it, it cannot."""
    budget = frames / fps
    streaming = [s.repeats * s.gigabytes / device.gb_s if device.gb_s else 0.0 for s in stages]
    if sum(streaming) >= budget:
        return math.inf
    # The total is monotone in the efficiency: bisect, starting above any that could be needed.
    low, high = 1e-6, sum(s.repeats * s.tflop for s in stages) / device.tflops / (budget - sum(streaming))
    for _ in range(100):
        middle = (low + high) / 2
        compute = [s.repeats * s.tflop / (middle * device.tflops) for s in stages]
        total = sum(max(c, m) for c, m in zip(compute, streaming, strict=True))
        low, high = (middle, high) if total > budget else (low, middle)
    return high


def _products(cfg: DiTConfig, tokens: int, text: int) -> Iterator[tuple[str, int, int]]:
    """(name, FLOPs, bytes) of every matrix product of one pass."""

    def linear(name: str, rows: int, fan_in: int, fan_out: int) -> tuple[str, int, int]:
        return name, 2 * rows * fan_in * fan_out, _HALF * ((fan_in + 1) * fan_out + rows * (fan_in + fan_out))

    h = cfg.hidden
    yield linear("patch: in", tokens, cfg.in_channels, h)
    yield linear("caption: first", text, cfg.text_dim, h)
    yield linear("caption: second", text, h, h)
    for own, cross, ffn in zip(cfg.self_heads, cfg.cross_heads, cfg.ffn_widths, strict=True):
        for kind, heads, keys in (("self-attention", own, tokens), ("cross-attention", cross, text)):
            width = heads * cfg.head_dim
            if not width:
                continue
            yield linear(f"{kind}: q", tokens, h, width)
            yield linear(f"{kind}: k", keys, h, width)
            yield linear(f"{kind}: v", keys, h, width)
            yield f"{kind}: scores", 4 * tokens * keys * width, _HALF * 2 * (tokens + keys) * width
            yield linear(f"{kind}: out", tokens, width, h)
        if ffn:
            yield linear("FFN: up", tokens, h, ffn)
            yield linear("FFN: down", tokens, ffn, h)
    yield linear("patch: out", tokens, h, cfg.in_channels)

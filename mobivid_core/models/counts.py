"""Parameters, FLOPs and bytes of the diffusion transformer in closed form.

Paper: Table 1 (model sizes) and the section on on-device deployment. Conventions, here and nowhere else:

* a multiply-add is 2 FLOPs, and only matrix products and convolutions count, as in torch's `FlopCounterMode`;
  normalisation, softmax, GELU and additions are left out (under 1 % of the time budget at 1,344 tokens);
* attention counts both products (scores and weighted sum) in full: torch's counter needs the math backend for that;
* counts are for one forward pass at batch 1 (guidance doubles them), bytes are of float16.

Simplified: peak activation bytes assume that element-wise operations are fused into their neighbours, that attention's
scores are never stored whole, and that the residual stream stays in memory.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig

#: Layer kinds in the order of a forward pass.
KINDS = ("patch", "caption", "timestep", "self_attention", "cross_attention", "ffn", "modulation")
#: Width of the sinusoidal timestep embedding (diffusers' `Timesteps`, as in LTX-Video).
TIMESTEP_CHANNELS = 256
_BYTES = 2  # of a float16 number
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class LayerCount:
    """What one kind of layer costs in one forward pass at batch 1."""

    params: int = 0
    flops: int = 0  # multiply-add = 2
    weight_bytes: int = 0
    peak_bytes: int = 0  # largest activation memory alive in one layer of this kind (not summed over blocks)
    traffic_bytes: int = 0  # bytes read and written: weights once, inputs and outputs of each product once

    def __add__(self, other: LayerCount) -> LayerCount:
        """Sum of two kinds; the peak is the larger of the two, because layers run one after the other."""
        sums = [a + b for a, b in zip(astuple(self), astuple(other), strict=True)]
        sums[3] = max(self.peak_bytes, other.peak_bytes)
        return LayerCount(*sums)


def latent_grid(frames: int, height: int, width: int, ratio: Grid = (8, 32, 32)) -> Grid:
    """Latent grid (t, h, w) of a clip, its first frame coded alone; a ParameterError names the nearest valid size."""
    time, high, wide = ratio
    grid = 1 + max(0, round((frames - 1) / time)), max(1, round(height / high)), max(1, round(width / wide))
    nearest = 1 + (grid[0] - 1) * time, grid[1] * high, grid[2] * wide
    if nearest != (frames, height, width):
        raise ParameterError(
            f"a clip of {frames} frames of {height}x{width} does not fit the VAE's {time}x{high}x{wide} compression "
            f"(frames = 1 + {time}k, height a multiple of {high}, width of {wide}); the nearest valid size is "
            f"{nearest[0]} frames of {nearest[1]}x{nearest[2]}"
        )
    return grid


def dit_counts(
    cfg: DiTConfig,  # sizes; heads and FFN widths may differ from block to block
    grid: Grid,  # latent grid (t, h, w); one token a cell
    text_tokens: int,  # length of the text sequence, padding included
) -> dict[str, LayerCount]:
    """Counts of a DiT per layer kind, with their "total"; `params` and `flops` equal the module's own to the unit."""
    h, c, tokens = cfg.hidden, cfg.in_channels, grid[0] * grid[1] * grid[2]
    parts = {
        "patch": [linear_count(tokens, c, h), linear_count(tokens, h, c)],
        "caption": [linear_count(text_tokens, cfg.text_dim, h), linear_count(text_tokens, h, h)],
        "timestep": [linear_count(1, *ends) for ends in ((TIMESTEP_CHANNELS, h), (h, h), (h, 6 * h))],
        "self_attention": [_attention(cfg, heads, tokens, tokens) for heads in cfg.self_heads],
        "cross_attention": [_attention(cfg, heads, tokens, text_tokens) for heads in cfg.cross_heads],
        "ffn": [_ffn(h, width, tokens) for width in cfg.ffn_widths],
        "modulation": [_weights(6 * h * cfg.blocks + 2 * h)],
    }
    counts = {kind: sum(layers, LayerCount()) for kind, layers in parts.items()}
    return counts | {"total": sum(counts.values(), LayerCount())}


def dit_params(cfg: DiTConfig) -> dict[str, int]:
    """Parameters per layer kind and "total"; equal to the module's own count."""
    return {kind: c.params for kind, c in dit_counts(cfg, (1, 1, 1), 1).items()}


def dit_flops(cfg: DiTConfig, grid: Grid, text_tokens: int = 77) -> dict[str, int]:
    """FLOPs of one forward pass at batch 1 per layer kind and "total" (multiply-add = 2)."""
    return {kind: c.flops for kind, c in dit_counts(cfg, grid, text_tokens).items()}


def block_flops_split(cfg: DiTConfig, grid: Grid, text_tokens: int = 77) -> dict[str, int]:
    """FLOPs with attention's quadratic part apart: projections grow with the tokens, scores with their square."""
    tokens = grid[0] * grid[1] * grid[2]
    flops = dit_flops(cfg, grid, text_tokens)
    scores = sum(4 * tokens * tokens * heads * cfg.head_dim for heads in cfg.self_heads)
    return {
        "self-attention scores": scores,
        "self-attention projections": flops["self_attention"] - scores,
        "cross-attention": flops["cross_attention"],
        "FFN": flops["ffn"],
        "other": flops["patch"] + flops["caption"] + flops["timestep"],
    }


def clip_flops(forward_flops: int, *, steps: int, guidance: bool) -> int:
    """FLOPs of one clip: guidance runs the transformer twice a step."""
    return forward_flops * steps * (2 if guidance else 1)


def linear_count(rows: int, fan_in: int, fan_out: int) -> LayerCount:
    """A linear layer with bias on `rows` rows."""
    params, moved = fan_in * fan_out + fan_out, rows * (fan_in + fan_out)
    sizes = (_BYTES * n for n in (params, moved, params + moved))
    return LayerCount(params, 2 * rows * fan_in * fan_out, *sizes)


def _weights(params: int) -> LayerCount:
    """Weights that no matrix product takes."""
    return LayerCount(params=params, weight_bytes=_BYTES * params, traffic_bytes=_BYTES * params)


def _attention(cfg: DiTConfig, heads: int, queries: int, keys: int) -> LayerCount:
    """One attention layer: q, k, v, out with bias, and q/k RMS-norm weights."""
    h, width = cfg.hidden, heads * cfg.head_dim
    rows = ((queries, h, width), (keys, h, width), (keys, h, width), (queries, width, h))
    linears = sum((linear_count(*row) for row in rows), LayerCount())
    # Residual stream and its normalised copy, then q, k, v and the heads' output side by side.
    moved = 2 * (queries + keys) * width
    peak, flops = _BYTES * (2 * queries * h + moved), 4 * heads * queries * keys * cfg.head_dim
    return linears + _weights(2 * width) + LayerCount(flops=flops, peak_bytes=peak, traffic_bytes=_BYTES * moved)


def _ffn(hidden: int, width: int, tokens: int) -> LayerCount:
    """Linear, GELU, linear."""
    both = linear_count(tokens, hidden, width) + linear_count(tokens, width, hidden)
    return replace(both, peak_bytes=_BYTES * (3 * tokens * hidden + tokens * width))

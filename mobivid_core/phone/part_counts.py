"""Closed-form counts of the parts around the transformer: text encoder and light decoder, per layer kind.

Paper: CLIP and an 8x32x32 VAE (data/paper claims C27 and C19). Conventions: `counts`. Peak activations are those of the
largest single layer, input and output.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mobivid_core.models.counts import Grid, LayerCount, linear_count

_SIZE = 2  # bytes of a float16
#: Kinds of `text_counts` -> modules of transformers' CLIP and BERT encoders (for `module_counts.counts_by_kind`).
TEXT_KINDS = {
    "embedding": r"(.*\.)?embeddings",
    "attention": r".*(self_attn|attention)",
    "ffn": r".*(mlp|intermediate|layer\.\d+\.output)",
    "norm": r".*(layer_norm1|layer_norm2|final_layer_norm)",
}
#: Kinds of `decoder_counts` -> modules of the VAE's decoding half.
DECODER_KINDS = {
    "linear path": r"linear_decoder\.(split\.first|split\.rest|space)",
    "tokens to an eighth": r"decoder_net\.(enter|stages\.\d+)",
    "at an eighth": r"decoder_net\.(before|fine)",
    "at a quarter": r"decoder_net\.(up|see|hear\.\d+|refine\.\d+|out)",
}


def text_counts(
    *, hidden: int, layers: int, ffn: int, vocabulary: int, positions: int, length: int, bert: bool = False
) -> dict[str, LayerCount]:
    """A CLIP or BERT text encoder on `length` tokens, per layer kind and "total".

    BERT has two token types, and norms inside embedding, attention and feed-forward (post-norm) instead of CLIP's.
    """
    square = linear_count(length, hidden, hidden)
    norm = _only_params(2 * hidden)
    scores = LayerCount(flops=4 * length * length * hidden, traffic_bytes=4 * length * hidden * _SIZE)
    attention = _sum([square, square, square, square, scores] * layers)
    both = linear_count(length, hidden, ffn) + linear_count(length, ffn, hidden)
    table = _only_params((vocabulary + positions) * hidden)
    if bert:
        counts = {
            "embedding": table + _only_params(2 * hidden) + norm,
            "attention": attention + _sum([norm] * layers),
            "ffn": _sum([both, norm] * layers),
            "norm": LayerCount(),
        }
    else:
        counts = {"embedding": table, "attention": attention, "ffn": _sum([both] * layers)}
        counts["norm"] = _sum([norm] * (2 * layers + 1))
    return counts | {"total": _sum(counts.values())}


def decoder_counts(grid: Grid, *, channels: int, width: int, ratio: Grid = (8, 32, 32)) -> dict[str, LayerCount]:
    """The light decoder (`models.vae`) on a latent grid, per layer kind and "total".

    The rotation of pixels across token borders (`models.vae_linear`) is element-wise, and left out as all such work is.

    Args:
        grid: Latent steps, rows and columns (t, h, w).
        channels: Latent channels.
        width: Channels at an eighth of the resolution.
        ratio: Compression time x height x width.
    """
    steps, rows, columns = grid
    time, patch, _ = ratio
    pixels = 3 * patch * patch
    kept = min(pixels, 2 * channels)  # coefficients of a frame's patch, the VAE's own choice
    cells, frames = rows * columns, 1 + (steps - 1) * time

    def conv(fan_in: int, fan_out: int, side: int, images: int, scale: int, bias: bool = True) -> LayerCount:
        return _conv(fan_in, fan_out, side, images * cells * scale * scale, bias)

    def res(fan: int, scale: int) -> LayerCount:
        return _sum([conv(fan, fan, 3, steps, scale)] * 2)

    linear = [
        conv(channels, kept, 1, 1, 1, bias=False), conv(channels, time * kept, 1, steps - 1, 1, bias=False),
        conv(kept, pixels, 1, frames, 1, bias=False),
    ]  # fmt: skip
    widths = [width, width * 5 // 4, width * 3 // 2][: int(math.log2(patch // 8)) + 1][::-1]
    tokens, scale = [conv(channels, widths[0], 3, steps, 1)], 1
    for a, b in zip(widths, widths[1:], strict=False):
        tokens.append(conv(a, 4 * b, 1, steps, scale))
        scale *= 2
        if b != width:
            tokens.append(res(b, scale))
    eighth = [conv(width, width, 1, steps - 1, scale), res(width, scale), res(width, scale)]
    finest = width * 3 // 5
    quarter = [conv(width, 4 * finest, 1, steps, scale)]
    scale *= 2
    quarter += [conv(3 * time * 16, finest, 1, steps, scale), conv(finest, 3 * time * 16, 3, steps, scale)]
    quarter += [conv(finest, finest, 1, steps - 1, scale) for _ in range(2)] + [res(finest, scale) for _ in range(2)]
    layers = (linear, tokens, eighth, quarter) if width else (linear, [], [], [])
    counts = {kind: _sum(parts) for kind, parts in zip(DECODER_KINDS, layers, strict=True)}
    return counts | {"total": _sum(counts.values())}


def _conv(fan_in: int, fan_out: int, side: int, outputs: int, bias: bool) -> LayerCount:
    """A convolution of `side` x `side` that makes `outputs` pixels, at stride 1."""
    params = fan_in * fan_out * side * side + (fan_out if bias else 0)
    weights, moved = params * _SIZE, outputs * (fan_in + fan_out) * _SIZE
    return LayerCount(params, 2 * fan_in * fan_out * side * side * outputs, weights, moved, weights + moved)


def _only_params(params: int) -> LayerCount:
    """Weights without products: embeddings, norms."""
    return LayerCount(params=params, weight_bytes=params * _SIZE, traffic_bytes=params * _SIZE)


def _sum(counts: Iterable[LayerCount]) -> LayerCount:
    return sum(counts, LayerCount())

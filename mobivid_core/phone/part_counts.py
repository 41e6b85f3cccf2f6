"""Closed-form counts of the parts around the transformer: text encoder and light decoder, per layer kind.

Paper: CLIP and an 8x32x32 VAE (data/paper claims C27 and C19). Conventions: `counts`. Peak activations are those of the
largest single layer, input and output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mobivid_core.models.counts import Grid, LayerCount, linear_count

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
    *, hidden: int, layers: int, ffn: int, vocabulary: int, positions: int, length: int, bert: bool = False,
    size: int = 2,
) -> dict[str, LayerCount]:  # fmt: skip
    """A CLIP or BERT text encoder on `length` tokens, per layer kind and "total".

    Args:
        hidden: Width.
        layers: Layers.
        ffn: Hidden width of the feed-forward.
        vocabulary: Rows of the token embedding.
        positions: Rows of the position embedding.
        length: Tokens.
        bert: Two token types and norms inside embedding, attention and feed-forward (post-norm) instead of CLIP's.
        size: Bytes a value.
    """
    square = linear_count(length, hidden, hidden, size)
    norm = _only_params(2 * hidden, size)
    scores = LayerCount(flops=4 * length * length * hidden, traffic_bytes=4 * length * hidden * size)
    attention = _times(layers, square + square + square + square + scores)
    both = linear_count(length, hidden, ffn, size) + linear_count(length, ffn, hidden, size)
    table = _only_params((vocabulary + positions) * hidden, size)
    if bert:
        counts = {
            "embedding": table + _only_params(2 * hidden, size) + norm,
            "attention": attention + _times(layers, norm),
            "ffn": _times(layers, both + norm),
            "norm": LayerCount(),
        }
    else:
        counts = {"embedding": table, "attention": attention, "ffn": _times(layers, both)}
        counts["norm"] = _times(2 * layers + 1, norm)
    return counts | {"total": sum(counts.values(), LayerCount())}


def decoder_counts(
    grid: Grid, *, channels: int, width: int, ratio: Grid = (8, 32, 32), kept: int | None = None, size: int = 2
) -> dict[str, LayerCount]:
    """The light decoder (`models.vae`) on a latent grid, per layer kind and "total".

    The rotation of pixels across token borders (`models.vae_linear`) is element-wise, and left out as all such work is.

    Args:
        grid: Latent steps, rows and columns (t, h, w).
        channels: Latent channels.
        width: Channels at an eighth of the resolution.
        ratio: Compression time x height x width.
        kept: Coefficients a frame's patch keeps; None for the VAE's own choice.
        size: Bytes a value.
    """
    steps, rows, columns = grid
    time, patch, _ = ratio
    pixels = 3 * patch * patch
    kept = min(pixels, kept or 2 * channels)
    cells, frames = rows * columns, 1 + (steps - 1) * time

    def conv(fan_in: int, fan_out: int, side: int, images: int, scale: int, bias: bool = True) -> LayerCount:
        return _conv(fan_in, fan_out, side, images * cells * scale * scale, size, bias)

    def res(channels_: int, scale: int) -> LayerCount:
        return _times(2, conv(channels_, channels_, 3, steps, scale))

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
    return counts | {"total": _sum(list(counts.values()))}


def _conv(fan_in: int, fan_out: int, side: int, outputs: int, size: int, bias: bool) -> LayerCount:
    """A convolution of `side` x `side` that makes `outputs` pixels, at stride 1."""
    params = fan_in * fan_out * side * side + (fan_out if bias else 0)
    moved = outputs * (fan_in + fan_out) * size
    return LayerCount(params, 2 * fan_in * fan_out * side * side * outputs, params * size, moved, params * size + moved)


def _only_params(params: int, size: int) -> LayerCount:
    """Weights without products: embeddings, norms."""
    return LayerCount(params=params, weight_bytes=params * size, traffic_bytes=params * size)


def _times(n: int, count: LayerCount) -> LayerCount:
    """The same layer n times."""
    return _sum([count] * n)


def _sum(counts: Sequence[LayerCount]) -> LayerCount:
    return sum(counts, LayerCount())

"""Checks of exercise notebook 06: FLOPs of a block, frames per second, memory of a tiled FFN."""

from __future__ import annotations

import math
from collections.abc import Callable

from mobivid_core.lab.teaching.verdict import Wrong, checked, run
from mobivid_core.models.config import MOBILE, DiTConfig
from mobivid_core.models.counts import block_flops_split
from mobivid_core.phone.tiled import tile_bounds

TEXT = 77


@checked
def flops(block_flops: Callable[..., float], coarse_share: float, fine_share: float) -> str:
    """block_flops(tokens, hidden, heads x head width, ffn, text), and the share of attention's quadratic part.

    The shares are those in a MOBILE block at 1,344 tokens and at 39,936 (4x8x8).
    """
    for tokens, heads, ffn in ((1, 1, 1), (100, 3, 50), (1344, 20, 6144)):
        cfg = DiTConfig.uniform(blocks=1, heads=heads, ffn=ffn, hidden=2048, head_dim=64)
        split = block_flops_split(cfg, (1, 1, tokens), TEXT)
        right = sum(value for kind, value in split.items() if kind != "other")
        found = float(run(block_flops, tokens, 2048, 64 * heads, ffn, TEXT))
        given = f"{tokens} tokens, {heads} heads, {ffn} neurons"
        if math.isclose(2 * found, right):
            raise Wrong(f"{given}: a multiply-add counts as two FLOPs here.")
        if math.isclose(found, right - split["self-attention scores"]) and tokens > 1:
            raise Wrong(f"{given}: the scores of self-attention are missing.")
        if math.isclose(found, right - split["self-attention scores"] / 2):
            raise Wrong(f"{given}: attention has two quadratic products, q with k and the weights with v.")
        if math.isclose(found, right - split["cross-attention"]):
            raise Wrong(f"{given}: cross-attention is missing.")
        if not math.isclose(found, right, rel_tol=1e-9):
            side = "too many" if found > right else "too few"
            raise Wrong(f"{given}: {side} FLOPs. Cross-attention's k and v see the text, its q and out the tokens.")
    for name, share, tokens in (("coarse_share", coarse_share, 1344), ("fine_share", fine_share, 39936)):
        split = block_flops_split(MOBILE, (1, 1, tokens), TEXT)
        right = split["self-attention scores"] / (sum(split.values()) - split["other"])
        if 1 < share <= 100:
            raise Wrong(f"`{name}` is a share between 0 and 1, not a percentage.")
        if abs(share - right) > 0.01:
            raise Wrong(f"`{name}` is {'too large' if share > right else 'too small'}: scores over the whole block.")
    return "on the coarse grid the quadratic term is a slice, on the fine one it is nearly everything."


@checked
def speed(frames_per_second: Callable[..., float], needed_efficiency: float, light: float, peak: float) -> str:
    """frames_per_second(frames, tflop, peak_tflops, efficiency), and the share of `peak` that 15 frames/s need.

    `light` are the TFLOP of one clip, `peak` the nominal TFLOP/s of the Neural Engine.
    """
    found, right = float(run(frames_per_second, 49, 7.0, 20.0, 0.5)), 49 * 20 * 0.5 / 7
    if math.isclose(found, 7 / 10):
        raise Wrong("`frames_per_second` returns the seconds of a clip.")
    if math.isclose(found, right / 49):
        raise Wrong("`frames_per_second` counts clips, not frames.")
    if math.isclose(found, right / 0.5):
        raise Wrong("`frames_per_second` takes the whole peak as reached; only a share of it is.")
    if not math.isclose(found, right, rel_tol=1e-6):
        raise Wrong("`frames_per_second`: frames over seconds; seconds are work over reached speed.")
    needed = 15 * light / (49 * peak)
    if math.isclose(needed_efficiency, 1 / needed, rel_tol=0.02) or needed_efficiency > 1:
        raise Wrong("`needed_efficiency` is above 1: an engine cannot exceed its peak. Is the fraction upside down?")
    if math.isclose(needed_efficiency, 24 / 15 * needed, rel_tol=0.01):
        raise Wrong("`needed_efficiency`: 24 frames/s is how fast the clip plays, not how fast it is made.")
    if not math.isclose(needed_efficiency, needed, rel_tol=0.02):
        raise Wrong("`needed_efficiency`: solve your formula for the efficiency at 15 frames/s.")
    return "a share, to be compared with what published models reach on the same engines; it proves nothing."


@checked
def tiles(hidden_megabytes: Callable[..., float], fewest_tiles: int) -> str:
    """Memory of the FFN's hidden activation.

    Args:
        hidden_megabytes: (tokens, neurons, tiles) -> MB (1e6 bytes) alive in float16.
        fewest_tiles: Fewest tiles of the MOBILE FFN at 1,344 tokens with at most 2 MB alive.
    """
    for tokens, neurons, count in ((1344, 6144, 1), (1344, 6144, 4), (100, 10, 4)):
        right = 2 * tokens * max(end - start for start, end in tile_bounds(neurons, count)) / 1e6
        found = float(run(hidden_megabytes, tokens, neurons, count))
        given = f"{tokens} tokens, {neurons} neurons in {count} tiles"
        if math.isclose(found, 2 * right):
            raise Wrong(f"{given}: float16 has two bytes, not four.")
        if math.isclose(found, right / 2):
            raise Wrong(f"{given}: you counted values; a float16 has more than one byte.")
        if math.isclose(found, right * 1e6) or math.isclose(found, right * 1e6 / 2**20):
            raise Wrong(f"{given}: give MB of 1e6 bytes.")
        if count > 1 and math.isclose(found, 2 * tokens * neurons / 1e6):
            raise Wrong(f"{given}: that is the whole activation; the tiles run one after the other.")
        if neurons % count and found < right:
            raise Wrong(f"{given}: the tiles cannot all be equal, and the largest one decides.")
        if not math.isclose(found, right, rel_tol=1e-6):
            raise Wrong(f"{given}: tokens x neurons of one tile x bytes of a value.")

    def alive(count: int) -> float:
        return 2 * 1344 * max(end - start for start, end in tile_bounds(6144, count)) / 1e6

    if fewest_tiles < 1:
        raise Wrong("`fewest_tiles` is at least one.")
    if alive(int(fewest_tiles)) > 2:
        raise Wrong("`fewest_tiles`: with that many, more than 2 MB are alive.")
    if fewest_tiles > 1 and alive(int(fewest_tiles) - 1) <= 2:
        raise Wrong("`fewest_tiles`: fewer tiles keep within 2 MB as well.")
    return "memory falls with the tiles while the result stays the same sum, taken in parts."

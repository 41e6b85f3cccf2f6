"""Checks of exercise notebook 06: FLOPs of a block, frames per second, memory of a tiled FFN."""

from __future__ import annotations

from collections.abc import Callable

from mobivid_core.lab.teaching.verdict import Wrong, checked, compare, run
from mobivid_core.models.config import MOBILE, DiTConfig
from mobivid_core.models.counts import block_flops_split
from mobivid_core.phone.tiled import tile_bounds

TEXT = 77


@checked
def flops(block_flops: Callable[..., float], coarse_share: float, fine_share: float) -> str:
    """block_flops(tokens, hidden, heads x head width, ffn, text); quadratic part's share at 1,344 and 39,936 tokens."""
    for tokens, heads, ffn in ((1, 1, 1), (100, 3, 50), (1344, 20, 6144)):
        cfg = DiTConfig.uniform(blocks=1, heads=heads, ffn=ffn, hidden=2048, head_dim=64)
        split = block_flops_split(cfg, (1, 1, tokens), TEXT)
        right = sum(value for kind, value in split.items() if kind != "other")
        found = float(run(block_flops, tokens, 2048, 64 * heads, ffn, TEXT))
        given = f"{tokens} tokens, {heads} heads, {ffn} neurons"
        off = "too many FLOPs" if found > right else "too few FLOPs"
        compare(found, right, {
            right / 2: f"{given}: a multiply-add counts as two FLOPs here.",
            right - split["self-attention scores"]: f"{given}: the scores of self-attention are missing.",
            right - split["self-attention scores"] / 2:
                f"{given}: attention has two quadratic products, q with k and the weights with v.",
            right - split["cross-attention"]: f"{given}: cross-attention is missing.",
        }, f"{given}: {off}. Cross-attention's k and v see the text, its q and out the tokens.", 1e-9)  # fmt: skip
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
    """frames_per_second(frames, tflop, peak_tflops, efficiency); share of `peak` TFLOP/s for 15/s, at `light` TFLOP."""
    found, right = float(run(frames_per_second, 49, 7.0, 20.0, 0.5)), 49 * 20 * 0.5 / 7
    compare(found, right, {
        7 / 10: "`frames_per_second` returns the seconds of a clip.",
        right / 49: "`frames_per_second` counts clips, not frames.",
        right / 0.5: "`frames_per_second` takes the whole peak as reached; only a share of it is.",
    }, "`frames_per_second`: frames over seconds; seconds are work over reached speed.")  # fmt: skip
    if needed_efficiency > 1:
        raise Wrong("`needed_efficiency` is above 1: an engine cannot exceed its peak. Is the fraction upside down?")
    needed = 15 * light / (49 * peak)
    compare(needed_efficiency, needed, {
        24 / 15 * needed: "`needed_efficiency`: 24 frames/s is how fast the clip plays, not how fast it is made.",
    }, "`needed_efficiency`: solve your formula for the efficiency at 15 frames/s.", rel_tol=0.02)  # fmt: skip
    return "a share, to be compared with what published models reach on the same engines; it proves nothing."


@checked
def tiles(hidden_megabytes: Callable[..., float], fewest_tiles: int) -> str:
    """hidden_megabytes(tokens, neurons, tiles) -> MB (1e6 bytes) of the FFN's hidden activation alive in float16.

    `fewest_tiles` keep the MOBILE FFN's at 1,344 tokens within 2 MB.
    """
    for tokens, neurons, count in ((1344, 6144, 1), (1344, 6144, 4), (100, 10, 4)):
        right, found = _alive(tokens, neurons, count), float(run(hidden_megabytes, tokens, neurons, count))
        given = f"{tokens} tokens, {neurons} neurons in {count} tiles"
        unequal = neurons % count and found < right
        compare(found, right, {
            2 * right: f"{given}: float16 has two bytes, not four.",
            right / 2: f"{given}: you counted values; a float16 has more than one byte.",
            right * 1e6: f"{given}: give MB of 1e6 bytes.",
            right * 1e6 / 2**20: f"{given}: give MB of 1e6 bytes.",
            2 * tokens * neurons / 1e6: f"{given}: that is the whole activation; the tiles run one after the other.",
        }, f"{given}: the tiles cannot all be equal, and the largest one decides." if unequal else
           f"{given}: tokens x neurons of one tile x bytes of a value.")  # fmt: skip
    if fewest_tiles < 1:
        raise Wrong("`fewest_tiles` is at least one.")
    if _alive(1344, 6144, int(fewest_tiles)) > 2:
        raise Wrong("`fewest_tiles`: with that many, more than 2 MB are alive.")
    if fewest_tiles > 1 and _alive(1344, 6144, int(fewest_tiles) - 1) <= 2:
        raise Wrong("`fewest_tiles`: fewer tiles keep within 2 MB as well.")
    return "memory falls with the tiles while the result stays the same sum, taken in parts."


def _alive(tokens: int, neurons: int, count: int) -> float:
    """MB of the largest of `count` tiles."""
    return 2 * tokens * max(end - start for start, end in tile_bounds(neurons, count)) / 1e6

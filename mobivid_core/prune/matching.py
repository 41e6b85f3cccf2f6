"""Which teacher states serve as targets for a pruned model's blocks."""

from __future__ import annotations

from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.kd import MatchedFeatures


def matched_features(plan: PruningPlan, count: int = 3) -> MatchedFeatures:
    """Pick `count` student blocks, evenly spaced, and the teacher state each stands for.

    A kept block also does the work of the removed blocks that follow it, so it is matched to the teacher's state just
    before the next kept block. The last block is left to the output term.
    """
    kept = plan.keep_blocks
    inner = len(kept) - 1
    picked = sorted({round((i + 1) * inner / (count + 1)) for i in range(count)} & set(range(inner)))
    return MatchedFeatures(tuple(picked), tuple(stands_for(plan, i) for i in picked))


def stands_for(plan: PruningPlan, student_block: int) -> int:
    """The last teacher block whose work kept block `student_block` does: the one before the next kept block."""
    following = (*plan.keep_blocks[1:], plan.source.blocks)
    return following[student_block] - 1

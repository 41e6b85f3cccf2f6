"""Choose blocks to remove one at a time, measuring again after each; then score the widths of the rest.

Removing a block changes the damage of removing others, so one-shot block scores mislead. Backward elimination with the
exact KD loss costs n + (n-1) + ... forward passes on a small calibration set: seconds on the miniature.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from mobivid_core.errors import BudgetError, ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.damage import gauss_newton_sensitivity
from mobivid_core.sensitivity.kd import BATCH, Reference, reference
from mobivid_core.sensitivity.scores import Scores


@torch.no_grad()
def eliminate_blocks(
    model: MobiVidTransformer3DModel, against: Reference, keep: int, progress: bool = True
) -> tuple[tuple[int, ...], list[tuple[int, float]]]:
    """Remove the block that adds the least loss (output term), measure all again, until `keep` blocks are left.

    Returns the kept blocks and, in order, each removed one with the loss after it. A BudgetError says if `keep` is more
    than there are, or none; a ParameterError if a loss is not finite.
    """
    total = len(model.blocks)
    if not 1 <= keep <= total:
        raise BudgetError(f"cannot keep {keep} of {total} blocks; keep 1 to {total}")
    alive, history = list(range(total)), []
    entries = [(rows, *model.enter(*batch.inputs)) for rows, batch in against.calibration.batches(BATCH)]
    for _ in tqdm(range(total - keep), desc="removing blocks", disable=not progress, ascii=True, mininterval=2.0):
        losses = _losses_without_each(model, against, entries, alive)
        if not np.isfinite(losses).all():  # argmin would take the NaN
            raise ParameterError("the KD loss without a block is not finite; look at the model and its calibration set")
        worst = int(np.argmin(losses))
        history.append((alive.pop(worst), float(losses[worst])))
    return tuple(alive), history


def _losses_without_each(
    model: MobiVidTransformer3DModel, against: Reference, entries: list, alive: list[int]
) -> np.ndarray:
    """KD output loss without each alive block in turn; the states before it are shared."""
    losses, scale = np.zeros(len(alive)), against.scales()[0]
    for rows, x, context in entries:
        for p in range(len(alive)):
            y = x
            for b in alive[p + 1 :]:
                y = model.run_block(b, y, context)
            error = model.leave(y, context) - against.output[rows]
            losses[p] += scale * float(error.square().sum()) / len(against.calibration)
            x = model.run_block(alive[p], x, context)
    return losses


def without_blocks(sizes: DiTConfig, keep_blocks: tuple[int, ...]) -> PruningPlan:
    """The plan that keeps whole blocks."""
    return PruningPlan.of_blocks(sizes, keep_blocks, {"method": "whole blocks"})


def rescore(
    model: MobiVidTransformer3DModel, against: Reference, keep_blocks: tuple[int, ...], probes: int = 4, seed: int = 0
) -> Scores:
    """Gauss-Newton scores of heads and neurons in the model without the removed blocks, in the source's indices.

    Removed blocks get score 0 and their units too; block scores of kept blocks are those of the shortened model.
    """
    short = prune(model, without_blocks(model.sizes, keep_blocks)).eval()
    found, _ = gauss_newton_sensitivity(short, reference(short, against.calibration), probes=probes, seed=seed)
    blocks = np.zeros(model.sizes.blocks)
    blocks[list(keep_blocks)] = found.blocks
    parts = {}
    for kind, widths in model.sizes.units.items():
        own = dict(zip(keep_blocks, getattr(found, kind), strict=True))
        parts[kind] = tuple(own.get(b, np.zeros(width)) for b, width in enumerate(widths))
    return replace(found, blocks=blocks, **parts, estimator=f"{found.estimator}_rescored")

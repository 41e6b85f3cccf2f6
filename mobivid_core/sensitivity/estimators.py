"""Rankings to compare with: task-loss gradient and Fisher on the gates, weight magnitude, block influence, chance.

None of these uses the KD loss. The first two come from one backward pass of the training loss; magnitude is free.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.gates import Gates
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import added, frozen, scores_of
from mobivid_core.sensitivity.kd import BATCH, forward
from mobivid_core.sensitivity.scores import Scores, unit_widths
from mobivid_core.sensitivity.staged import enter, run_block


def task_loss_scores(model: MobiVidTransformer3DModel, calibration: CalibrationSet) -> tuple[Scores, Scores]:
    """Gate gradient and gate Fisher of the flow-matching loss |y - (noise - x0)|^2.

    Returns:
        (|mean_b dL_b/dg|, mean_b (dL_b/dg)^2) for every block, head and neuron, from one backward pass.
    """
    began = time.perf_counter()
    first: list[Tensor] = []
    second: list[Tensor] = []
    with frozen(model):
        for _, batch in calibration.batches(BATCH):
            gates = Gates.ones(model.sizes, batch=len(batch)).requires_grad_()
            loss = (forward(model, batch, gates=gates)[0] - batch.velocity).square().flatten(1).mean(1).sum()
            found = [g.double() for g in torch.autograd.grad(loss, gates.tensors())]
            first, second = added(first, [g.sum(0) for g in found]), added(second, [g.square().sum(0) for g in found])
    facts = {"passes": 3, "seconds": time.perf_counter() - began, "notes": {"samples": len(calibration)}}
    return (
        scores_of([(g / len(calibration)).abs() for g in first], "task_gradient", facts),
        scores_of([g / len(calibration) for g in second], "task_fisher", facts),
    )


def magnitude_scores(model: MobiVidTransformer3DModel) -> Scores:
    """Sum of squared weights that leave with each unit (a block: all of its heads' and neurons')."""
    return weight_scores(model, torch.square, "magnitude", 0, time.perf_counter())


@torch.no_grad()
def weight_scores(
    model: MobiVidTransformer3DModel, value: Callable[[Tensor], Tensor], name: str, passes: float, began: float
) -> Scores:
    """Sums of `value` (a weight -> the same shape) over the weights that leave with each unit."""
    d, parts = model.config.head_dim, ([], [], [])
    for block in model.blocks:
        for attention, place in zip((block.attn1, block.attn2), parts[:2], strict=True):
            rows = sum(value(layer.weight).sum(1) for layer in (attention.to_q, attention.to_k, attention.to_v))
            place.append((rows + value(attention.to_out.weight).sum(0)).unflatten(0, (-1, d)).sum(1).double().numpy())
        parts[2].append((value(block.ffn.up.weight).sum(1) + value(block.ffn.down.weight).sum(0)).double().numpy())
    return unit_scores(*parts, name, passes, began)


def unit_scores(
    self_heads: list[np.ndarray],
    cross_heads: list[np.ndarray],
    ffn: list[np.ndarray],
    name: str,
    passes: float,
    began: float,
) -> Scores:
    """Scores of heads and neurons; a block's score is the sum over its units."""
    blocks = np.array([sum(map(np.sum, units)) for units in zip(self_heads, cross_heads, ffn, strict=True)])
    return Scores(blocks, tuple(self_heads), tuple(cross_heads), tuple(ffn), name, passes, time.perf_counter() - began)


@torch.no_grad()
def block_influence(model: MobiVidTransformer3DModel, calibration: CalibrationSet) -> np.ndarray:
    """(n,) 1 - cos(block input, block output), averaged over tokens: small where a block changes little."""
    total = np.zeros(len(model.blocks))
    for _, batch in calibration.batches(BATCH):
        x, context = enter(model, batch)
        for b in range(len(model.blocks)):
            after = run_block(model, b, x, context)
            total[b] += float((1 - torch.cosine_similarity(x, after, dim=-1)).mean(1).sum())
            x = after
    return total / len(calibration)


def random_scores(sizes: DiTConfig, seed: int = 0) -> Scores:
    """Uniform random scores: the arm that every recipe has to beat."""
    rng = np.random.default_rng(seed)
    parts = {k: tuple(rng.random(w) for w in widths) for k, widths in unit_widths(sizes).items()}
    return Scores(rng.random(sizes.blocks), **parts, estimator="random", notes={"seed": seed})

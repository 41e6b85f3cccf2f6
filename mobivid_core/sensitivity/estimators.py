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
from mobivid_core.models.dit import Gates, MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import added, frozen, scores_of
from mobivid_core.sensitivity.kd import BATCH, forward
from mobivid_core.sensitivity.scores import Scores


def task_loss_scores(model: MobiVidTransformer3DModel, calibration: CalibrationSet) -> tuple[Scores, Scores]:
    """Gate gradient |mean_b dL_b/dg| and gate Fisher mean_b (dL_b/dg)^2 of the loss |y - (noise - x0)|^2."""
    began, n = time.perf_counter(), len(calibration)
    first: list[Tensor] = []
    second: list[Tensor] = []
    with frozen(model):
        for _, batch in calibration.batches(BATCH):
            gates = Gates.ones(model.sizes, batch=len(batch)).requires_grad_()
            loss = (forward(model, batch, gates=gates)[0] - batch.velocity).square().flatten(1).mean(1).sum()
            found = [g.double() for g in torch.autograd.grad(loss, gates.tensors())]
            first, second = added(first, [g.sum(0) for g in found]), added(second, [g.square().sum(0) for g in found])
    facts = {"passes": 3, "seconds": time.perf_counter() - began, "notes": {"samples": n}}
    gradient = scores_of([(g / n).abs() for g in first], "task_gradient", facts)
    return gradient, scores_of([g / n for g in second], "task_fisher", facts)


def magnitude_scores(model: MobiVidTransformer3DModel) -> Scores:
    """Sum of squared weights that leave with each unit (a block: all of its heads' and neurons')."""
    return weight_scores(model, torch.square, "magnitude", 0, time.perf_counter())


@torch.no_grad()
def weight_scores(
    model: MobiVidTransformer3DModel, value: Callable[[Tensor], Tensor], name: str, passes: float, began: float
) -> Scores:
    """Sums of `value` (a weight -> the same shape) over the weights that leave with each unit."""
    found: list[np.ndarray] = []
    for block in model.blocks:
        for attention in (block.attn1, block.attn2):
            rows = sum(value(layer.weight).sum(1) for layer in (attention.to_q, attention.to_k, attention.to_v))
            inner = (rows + value(attention.to_out.weight).sum(0)).unflatten(0, (-1, model.config.head_dim))
            found.append(inner.sum(1).double().numpy())
        found.append((value(block.ffn.up.weight).sum(1) + value(block.ffn.down.weight).sum(0)).double().numpy())
    return unit_scores(found, name, passes, began)


def unit_scores(found: list[np.ndarray], name: str, passes: float, began: float) -> Scores:
    """Scores of each block's self heads, cross heads and neurons, in turn; a block's is the sum over its units."""
    kinds = [tuple(found[kind::3]) for kind in range(3)]
    blocks = np.array([sum(map(np.sum, units)) for units in zip(*kinds, strict=True)])
    return Scores(blocks, *kinds, name, passes, time.perf_counter() - began)


@torch.no_grad()
def block_influence(model: MobiVidTransformer3DModel, calibration: CalibrationSet) -> np.ndarray:
    """(n,) 1 - cos(block input, block output), averaged over tokens: small where a block changes little."""
    total = np.zeros(len(model.blocks))
    for _, batch in calibration.batches(BATCH):
        x, context = model.enter(*batch.inputs)
        for b in range(len(model.blocks)):
            after = model.run_block(b, x, context)
            total[b] += float((1 - torch.cosine_similarity(x, after, dim=-1)).mean(1).sum())
            x = after
    return total / len(calibration)


def random_scores(sizes: DiTConfig, seed: int = 0) -> Scores:
    """Uniform random scores: the arm that every recipe has to beat."""
    rng = np.random.default_rng(seed)
    parts = {k: tuple(rng.random(w) for w in widths) for k, widths in sizes.units.items()}
    return Scores(rng.random(sizes.blocks), **parts, estimator="random", notes={"seed": seed})

"""Rankings to compare with: task-loss gradient and Fisher on the gates, weight magnitude, block influence, chance.

None of these uses the KD loss. The first two come from one backward pass of the training loss; magnitude is free.
"""

from __future__ import annotations

import time

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


@torch.no_grad()
def magnitude_scores(model: MobiVidTransformer3DModel) -> Scores:
    """Sum of squared weights that leave with each unit (a block: all of its heads' and neurons')."""
    began, d = time.perf_counter(), model.config.head_dim
    parts: dict[str, list[np.ndarray]] = {"self_heads": [], "cross_heads": [], "ffn": []}
    for block in model.blocks:
        for kind, attention in (("self_heads", block.attn1), ("cross_heads", block.attn2)):
            rows = sum(layer.weight.square().sum(1) for layer in (attention.to_q, attention.to_k, attention.to_v))
            rows = rows + attention.to_out.weight.square().sum(0)
            parts[kind].append(rows.unflatten(0, (-1, d)).sum(1).double().numpy())
        neurons = block.ffn.up.weight.square().sum(1) + block.ffn.down.weight.square().sum(0)
        parts["ffn"].append(neurons.double().numpy())
    blocks = np.array([sum(parts[k][b].sum() for k in parts) for b in range(len(model.blocks))])
    kinds = {k: tuple(v) for k, v in parts.items()}
    return Scores(blocks, **kinds, estimator="magnitude", passes=0, seconds=time.perf_counter() - began)


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

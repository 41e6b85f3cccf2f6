"""Every pruning criterion of notebook 03, on the same calibration set and units, so that rankings can be compared.

The libraries' criteria are scores of this project's units here, to rank against exact removal:

* weight Taylor (torch-pruning's GroupTaylorImportance): sum over a unit's weights of |w dL/dw|;
* weight Hessian (its GroupHessianImportance): sum of w^2 E[(dL/dw)^2], one backward pass a sample;
* activation (NVIDIA's Minitron): mean size of what a head or neuron sends into its output projection.

L is the flow-matching loss of the data: none of them knows a teacher. A block's score is the sum over its units.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import FFN_SLICES, gauss_newton_sensitivity
from mobivid_core.sensitivity.estimators import magnitude_scores, task_loss_scores, unit_scores, weight_scores
from mobivid_core.sensitivity.kd import BATCH, Reference, forward
from mobivid_core.sensitivity.scores import Scores

#: Samples of the Hessian criterion: one backward pass each.
HESSIAN_SAMPLES = 8


def criteria(
    teacher: MobiVidTransformer3DModel, calibration: CalibrationSet, against: Reference, seed: int = 0
) -> dict[str, Scores]:
    """Scores of every block, head and FFN slice by our estimator, by the task loss and by the libraries' criteria.

    The task loss is of the samples of `calibration`, the KD loss against the teacher's answers `against`; each
    criterion is in a unit of its own, only Gauss-Newton in that of the KD loss.
    """
    found = {
        f"Gauss-Newton, {probes} probe{'s' * (probes > 1)}": gauss_newton_sensitivity(
            teacher, against, probes, seed=seed
        )[1]
        for probes in (1, 4)
    }
    found["gate gradient, task loss"], found["gate Fisher, task loss"] = task_loss_scores(teacher, calibration)
    found["weight magnitude"] = magnitude_scores(teacher)
    found["weight Taylor (as torch-pruning)"] = weight_taylor_scores(teacher, calibration)
    found["weight Hessian (as torch-pruning)"] = weight_hessian_scores(teacher, calibration)
    found["activation size (as Minitron)"] = activation_scores(teacher, calibration)
    return {
        name: scores if len(scores.ffn[0]) == FFN_SLICES else replace(scores, ffn=scores.ffn_slices(FFN_SLICES))
        for name, scores in found.items()
    }


def task_loss(model: MobiVidTransformer3DModel, batch: CalibrationSet) -> Tensor:
    """Flow-matching loss of the data, summed over the batch."""
    return (forward(model, batch)[0] - batch.velocity).square().flatten(1).mean(1).sum()


def weight_taylor_scores(model: MobiVidTransformer3DModel, calibration: CalibrationSet) -> Scores:
    """Sum of |w dL/dw| over the weights of each unit."""
    began, work = time.perf_counter(), copy.deepcopy(model).requires_grad_(True)
    for _, batch in calibration.batches(BATCH):
        task_loss(work, batch).backward()
    return weight_scores(work, lambda w: (w * w.grad).abs(), "weight_taylor", 3, began)


def weight_hessian_scores(
    model: MobiVidTransformer3DModel, calibration: CalibrationSet, samples: int = HESSIAN_SAMPLES
) -> Scores:
    """Sum of w^2 E[(dL/dw)^2] over the weights of each unit, from the first `samples` samples."""
    began, few, work = time.perf_counter(), calibration.first(samples), copy.deepcopy(model).requires_grad_(True)
    squares = {p: torch.zeros_like(p) for p in work.blocks.parameters() if p.ndim == 2}
    for _, batch in few.batches(1):
        for p, gradient in zip(squares, torch.autograd.grad(task_loss(work, batch), [*squares]), strict=True):
            squares[p] += gradient.square()
    passes = 3 * len(few) / len(calibration)
    return weight_scores(work, lambda w: w.square() * squares[w], "weight_hessian", passes, began)


@torch.no_grad()
def activation_scores(model: MobiVidTransformer3DModel, calibration: CalibrationSet) -> Scores:
    """Mean norm over tokens of each head's output, and mean size of each neuron's activation."""
    began, d = time.perf_counter(), model.config.head_dim
    caught: dict[nn.Linear, Tensor] = {}

    def hook(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        size = x.abs() if layer in neurons else x.unflatten(-1, (-1, d)).norm(dim=-1)
        caught[layer] = caught.get(layer, 0) + size.flatten(0, 1).double().sum(0)

    neurons = {block.ffn.down for block in model.blocks}
    layers = [layer for b in model.blocks for layer in (b.attn1.to_out, b.attn2.to_out, b.ffn.down)]
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        for _, batch in calibration.batches(BATCH):
            forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    found = [caught[layer].numpy() for layer in layers]
    return unit_scores(found, "activation", 1, began)

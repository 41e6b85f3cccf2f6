"""Damage left after removing a unit and refitting the rest.

Gauss-Newton scores assume that nothing compensates for a removed unit. The least-squares refit does: a neuron that is
nearly a linear mix of others costs little, however large it is. So units are removed from each output projection one
after another, cheapest first, and the rest is solved for again each time: the optimal brain surgeon of Hassibi & Stork
(1993) on a layer's least squares, weighted by the sensitivity of the model's output. The price of a unit is what its
own removal adds in that order, in the unit of the KD loss.

With a the inputs of a projection W, g the gradient of a random probe at its output, r the mean of g^2 over channels and
m its mean over tokens relative to the mean of all:

    H = E[r a a^T],   price of units S = sum_c m_c W_cS ((H^-1)_SS)^-1 W_cS^T

scaled so that, without compensation, all units of a layer together cost what their Gauss-Newton scores say. Simplified:
errors of different tokens and channels do not add up coherently; layers do not compensate for one another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import BATCH, Reference
from mobivid_core.sensitivity.scores import Scores, unit_widths
from mobivid_core.sensitivity.staged import SUBLAYERS, output_projection

#: Neurons removed from an FFN between two solutions, as a share of its width.
STEP = 1 / 80
#: Damping of the least-squares solution, relative to the mean diagonal of H; the same as the refit's.
RIDGE = 1e-2


@dataclass
class _Layer:
    """Sums over samples and probes for one output projection with k inputs."""

    units: int  # units; k is a whole multiple
    second: Tensor  # (k + 1, k + 1) sum of r a a^T, with a one appended to a (the bias takes over what is constant)
    output_power: Tensor  # (D,) sum of g^2
    alone: Tensor  # (units,) sum over samples of the squared effect of one unit's removal: Gauss-Newton


def compensated_scores(
    model: MobiVidTransformer3DModel, against: Reference, probes: int = 1, seed: int = 0
) -> tuple[Scores, Scores]:
    """Removal costs after compensation by the remaining units, and Gauss-Newton scores from the same backward passes.

    Blocks are priced alike in both, since no take-over across blocks is modelled.

    Args:
        model: The teacher, in eval mode.
        against: Its own answers on the calibration set (only inputs and scales are used).
        probes: Random sign vectors a batch.
        seed: Of the probes.
    """
    began = time.perf_counter()
    layers = [output_projection(block, name) for block in model.blocks for name in SUBLAYERS]
    units = [n for widths in zip(*unit_widths(model.sizes).values(), strict=True) for n in widths]
    sums = [
        _Layer(n, torch.zeros(2 * (layer.in_features + 1,)), torch.zeros(layer.out_features), torch.zeros(n))
        for n, layer in zip(units, layers, strict=True)
    ]
    blocks = torch.zeros(len(model.blocks))
    generator = torch.Generator().manual_seed(seed)
    for _, batch in against.calibration.batches(BATCH):
        for inner, gradients, block_effects in _probed(model, batch, against, probes, generator):
            blocks += torch.stack([effect.square().sum() for effect in block_effects])
            for layer, total, a, g in zip(layers, sums, inner, gradients, strict=True):
                _add(total, layer, a, g)
    samples = probes * len(against.calibration)
    removed = [_prices(layer, total, samples) for layer, total in zip(layers, sums, strict=True)]
    facts = {
        "passes": 1 + 2 * probes,
        "seconds": time.perf_counter() - began,
        "notes": {"samples": len(against.calibration), "probes": probes},
    }
    block_scores = (blocks / samples).double().numpy()
    alone = [(total.alone / samples).double().numpy() for total in sums]
    return (
        Scores(block_scores, *(tuple(removed[i::3]) for i in range(3)), estimator=f"compensated_{probes}", **facts),
        Scores(block_scores, *(tuple(alone[i::3]) for i in range(3)), estimator=f"gauss_newton_{probes}", **facts),
    )


def _probed(
    model: MobiVidTransformer3DModel, batch: CalibrationSet, against: Reference, probes: int, generator: torch.Generator
) -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
    """For each probe: every projection's inputs (B, N, k) and output gradients (B, N, D), every block's effect (B,)."""
    layers = [output_projection(block, name) for block in model.blocks for name in SUBLAYERS]
    caught: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        caught[module] = (inputs[0], output)

    handles = [module.register_forward_hook(keep) for module in (*layers, *model.blocks)]
    try:
        with torch.enable_grad():
            noisy = batch.noisy.detach().requires_grad_()
            sample, features = model(
                noisy, batch.timestep, batch.text, batch.mask, feature_blocks=against.feature_blocks, return_dict=False
            )
    finally:
        for handle in handles:
            handle.remove()
    present = [layer for layer in layers if layer in caught]
    outputs = [caught[m][1] for m in (*present, *model.blocks)]
    for p in range(probes):
        pairs = zip(against.scales(), (sample, *features), strict=True)
        total = sum(
            scale**0.5 * ((torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1) * y).sum()
            for scale, y in pairs
        )
        gradients = torch.autograd.grad(total, outputs, retain_graph=p < probes - 1)
        found = dict(zip((*present, *model.blocks), gradients, strict=True))
        effects = [
            (found[block] * (caught[block][1] - caught[block][0])).detach().flatten(1).sum(1) for block in model.blocks
        ]
        inner = [caught[m][0].detach() if m in caught else noisy.new_zeros(len(batch), 1, 0) for m in layers]
        yield inner, [found.get(m, noisy.new_zeros(len(batch), 1, m.out_features)) for m in layers], effects


@torch.no_grad()
def _add(total: _Layer, layer: nn.Linear, inner: Tensor, gradient: Tensor) -> None:
    """Add one batch and probe."""
    effect = ((gradient @ layer.weight) * inner).sum(1)  # (B, k)
    if total.units:
        total.alone += effect.unflatten(1, (total.units, -1)).sum(2).square().sum(0)
    power = gradient.square()
    weighted = torch.cat([inner, inner.new_ones(*inner.shape[:2], 1)], dim=-1) * power.mean(-1, keepdim=True).sqrt()
    rows = weighted.flatten(0, 1)
    total.second += rows.T @ rows
    total.output_power += power.sum((0, 1))


@torch.no_grad()
def _prices(layer: nn.Linear, total: _Layer, samples: int) -> np.ndarray:
    """(units,) what each unit's removal adds, in the order of greedy removal."""
    if not total.units:
        return np.zeros(0)
    width = layer.in_features // total.units
    second = total.second.double() / samples
    sensitivity = (total.output_power / total.output_power.mean().clamp_min(1e-30)).double()
    weight = layer.weight.double() * sensitivity.sqrt()[:, None]  # channels weighted once and for all
    alone = (
        torch.stack(
            [
                (weight[:, u] @ second[u][:, u] * weight[:, u]).sum()
                for u in torch.arange(layer.in_features).view(total.units, width)
            ]
        )
        if width > 1
        else weight.square().sum(0) * second.diagonal()[:-1]
    )
    scale = float(total.alone.sum() / samples / alone.sum().clamp_min(1e-30))
    pull = RIDGE * second.diagonal().mean().clamp_min(1e-30)
    inverse = torch.linalg.inv(second + pull * torch.eye(len(second), dtype=second.dtype))
    left, prices, highest, rank = list(range(total.units)), np.zeros(total.units), 0.0, 0
    step = max(1, round(STEP * total.units)) if width == 1 else 1
    while left:
        now = _each(weight, inverse, len(left), width)
        chosen = torch.argsort(now)[: min(step, len(left))]
        units = sorted(int(i) for i in chosen)
        gone = torch.cat([torch.arange(u * width, (u + 1) * width) for u in units])
        core = torch.linalg.inv(inverse[gone][:, gone])
        price = float((weight[:, gone] @ core * weight[:, gone]).sum()) / len(units)
        highest = max(highest, price)
        for u in sorted(units, key=lambda u: float(now[u])):
            prices[left[u]] = scale * highest * (1 + 1e-9 * rank)  # the factor breaks ties in that order
            rank += 1
        stay = torch.ones(len(inverse), dtype=torch.bool)
        stay[gone] = False
        change = inverse[:, gone] @ core
        weight = (weight - weight[:, gone] @ change[:-1].T)[:, stay[:-1]]
        inverse = (inverse - change @ inverse[gone])[stay][:, stay]
        left = [u for i, u in enumerate(left) if i not in units]
    return prices


def _each(weight: Tensor, inverse: Tensor, units: int, width: int) -> Tensor:
    """(units,) price of each unit if it were the next to leave."""
    if width == 1:
        return weight.square().sum(0) / inverse.diagonal()[:-1]
    found = []
    for u in range(units):
        own = slice(u * width, (u + 1) * width)
        found.append((weight[:, own] @ torch.linalg.inv(inverse[own, own]) * weight[:, own]).sum())
    return torch.stack(found)

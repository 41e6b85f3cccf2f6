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
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import probe_gradients
from mobivid_core.sensitivity.kd import BATCH, Reference, forward
from mobivid_core.sensitivity.scores import Scores

#: Neurons removed from an FFN between two solutions, as a share of its width.
STEP = 1 / 80
#: Damping of the least-squares solution, relative to the mean diagonal of H; the same as the refit's.
RIDGE = 1e-2


@dataclass
class _Layer:
    """Sums over samples and probes for one output projection with k inputs."""

    layer: nn.Linear
    units: int  # k is a whole multiple
    # (k + 1, k + 1) sum of r a a^T, with a one appended to a (the bias takes over what is constant)
    second: Tensor | float = 0.0
    output_power: Tensor | float = 0.0  # (D,) sum of g^2
    alone: Tensor | float = 0.0  # (units,) sum over samples of the squared effect of one unit's removal: Gauss-Newton

    @torch.no_grad()
    def add(self, inner: Tensor, gradient: Tensor) -> None:
        """Add a batch's inputs (B, N, k) and the gradients of one probe at its outputs (B, N, D)."""
        effect = ((gradient @ self.layer.weight) * inner).sum(1)  # (B, k)
        self.alone = self.alone + effect.unflatten(1, (self.units, -1)).sum(2).square().sum(0)
        power = gradient.square()
        ones = inner.new_ones(*inner.shape[:2], 1)
        rows = (torch.cat([inner, ones], dim=-1) * power.mean(-1, keepdim=True).sqrt()).flatten(0, 1)
        self.second = self.second + rows.T @ rows
        self.output_power = self.output_power + power.sum((0, 1))


def compensated_scores(
    model: MobiVidTransformer3DModel, against: Reference, probes: int = 1, seed: int = 0
) -> tuple[Scores, Scores]:
    """Removal costs after compensation by the remaining units, and Gauss-Newton scores from the same backward passes.

    Blocks are priced alike in both, since no take-over across blocks is modelled; arguments as
    `gauss_newton_sensitivity`.
    """
    began = time.perf_counter()
    widths = [n for own in model.sizes.widths for n in own]
    layers = [layer for block in model.blocks for layer in block.projections()]
    sums = [_Layer(layer, n) for layer, n in zip(layers, widths, strict=True)]
    used = [total for total in sums if total.units]
    places = [*(total.layer for total in used), *model.blocks]
    blocks = torch.zeros(len(model.blocks))
    generator = torch.Generator().manual_seed(seed)
    for _, batch in against.calibration.batches(BATCH):
        outputs, caught = _caught(model, batch, against.feature_blocks, places)
        ends = [output for _, output in caught]
        for gradients in probe_gradients(outputs, ends, against, probes, generator):
            found = list(zip(caught, gradients, strict=True))
            for total, ((inner, _), gradient) in zip(used, found, strict=False):
                total.add(inner.detach(), gradient)
            blocks += torch.stack(
                [(g * (y - x)).detach().flatten(1).sum(1).square().sum() for (x, y), g in found[len(used) :]]
            )
    samples = probes * len(against.calibration)
    notes = {"samples": len(against.calibration), "probes": probes}
    empty = np.zeros(0)
    removed = [_prices(total, samples) if total.units else empty for total in sums]
    alone = [(total.alone / samples).double().numpy() if total.units else empty for total in sums]
    facts = 1 + 2 * probes, time.perf_counter() - began, notes

    def scores(units: list[np.ndarray], name: str) -> Scores:
        return Scores((blocks / samples).double().numpy(), *(tuple(units[i::3]) for i in range(3)), name, *facts)

    return scores(removed, f"compensated_{probes}"), scores(alone, f"gauss_newton_{probes}")


def _caught(
    model: MobiVidTransformer3DModel, batch: CalibrationSet, feature_blocks: Sequence[int], modules: list[nn.Module]
) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, Tensor]]]:
    """(velocity and features, the first input and the output of each module), with their graph."""
    caught: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        caught[module] = (inputs[0], output)

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        with torch.enable_grad():
            traced = replace(batch, noisy=batch.noisy.detach().requires_grad_())
            sample, features = forward(model, traced, feature_blocks)
    finally:
        for handle in handles:
            handle.remove()
    return (sample, *features), [caught[module] for module in modules]


@torch.no_grad()
def _prices(total: _Layer, samples: int) -> np.ndarray:
    """(units,) what each unit's removal adds, in the order of greedy removal."""
    layer, width = total.layer, total.layer.in_features // total.units
    second = total.second.double() / samples
    sensitivity = (total.output_power / total.output_power.mean().clamp_min(1e-30)).double()
    weight = layer.weight.double() * sensitivity.sqrt()[:, None]  # channels weighted once and for all
    if width == 1:
        alone = weight.square().sum(0) * second.diagonal()[:-1]
    else:
        units = torch.arange(layer.in_features).view(total.units, width)
        alone = torch.stack([(weight[:, u] @ second[u][:, u] * weight[:, u]).sum() for u in units])
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
    own = [slice(u * width, (u + 1) * width) for u in range(units)]
    return torch.stack([(weight[:, u] @ torch.linalg.inv(inverse[u, u]) * weight[:, u]).sum() for u in own])

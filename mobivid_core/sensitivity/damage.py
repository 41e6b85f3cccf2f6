"""KD sensitivity: the damage of removing each block, head and FFN neuron, exactly and from a few backward passes.

Paper: sensitivity-aware tri-level pruning. With L the KD loss and g the gates, teacher and student are the same model
at g = 1, so L = 0 and dL/dg = 0 there: a first-order Taylor score is identically zero. The second order is exact to
compute:

    L(1 - e_u) ~ 1/2 d2L/dg_u2 = sum_k s_k |dy_k/dg_u|^2 = E_v[(sum_k sqrt(s_k) v_k . dy_k/dg_u)^2]

for random sign vectors v_k on the outputs y_k (velocity and features) with scales s_k. One backward pass with one gate
per sample gives the squared term for every unit and sample at once (a Gauss-Newton diagonal; at g = 1 it is the true
Hessian).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import Context, Gates, MobiVidTransformer3DModel
from mobivid_core.sensitivity.kd import BATCH, Reference, forward
from mobivid_core.sensitivity.scores import Scores, slice_bounds

#: (kind, block, indices switched off together).
_Removal = tuple[str, int, list[int]]
_KINDS = {"blocks": ("blocks",), "heads": ("self_heads", "cross_heads"), "ffn": ("ffn",)}
FFN_SLICES = 8


class ExactSensitivity(NamedTuple):
    """Result of one-at-a-time removal."""

    scores: Scores  # rise of the KD loss; `ffn` by slice
    motion_share: Scores  # share (0 to 1) of each removal's output error that varies over latent time


@torch.no_grad()
def exact_sensitivity(
    model: MobiVidTransformer3DModel,  # the teacher
    reference: Reference,  # its own answers on the calibration set
    units: Sequence[str] = ("blocks", "heads", "ffn"),
    slices: int = FFN_SLICES,  # contiguous FFN slices a block (single neurons would take a pass each)
    progress: bool = True,
) -> ExactSensitivity:
    """Remove every unit in turn and measure the KD loss: scores and motion shares, nan for kinds not asked for.

    `passes` counts forward equivalents over the set; states before the changed block are reused, so that a removal in
    block b of n costs (n - b) / n.
    """
    unknown = set(units) - set(_KINDS)
    if unknown:
        raise ParameterError(f"unknown units {sorted(unknown)}; use any of {sorted(_KINDS)}")
    began, sizes, size = time.perf_counter(), model.sizes, len(reference.calibration)
    asked = {kind for unit in units for kind in _KINDS[unit]}
    removals = [removal for removal in _removals(sizes, slices) if removal[0] in asked]
    total, motion = torch.zeros(len(removals)), torch.zeros(len(removals))
    steps = len(removals) * -(-size // BATCH)
    bar = tqdm(total=steps, desc="exact sensitivity", disable=not progress, mininterval=2.0, ascii=True)
    for rows, batch in reference.calibration.batches(BATCH):
        x, context = model.enter(*batch.inputs)
        states = [x]
        for b in range(sizes.blocks):
            states.append(model.run_block(b, states[b], context))
        for p, removal in enumerate(removals):
            output, features = _without(model, states, context, removal, reference.feature_blocks)
            total[p] += reference.damage(rows, output, features).sum() / size
            motion[p] += _motion_share(output - reference.output[rows]).sum() / size
            bar.update()
    bar.close()
    passes = 1 + sum((sizes.blocks - b) / sizes.blocks for _, b, _ in removals)
    notes = {"samples": size, "ffn_slices": slices, "features": list(reference.feature_blocks)}
    facts = {"passes": passes, "seconds": time.perf_counter() - began, "notes": notes}
    return ExactSensitivity(
        _collect(removals, total, sizes, slices, "exact", facts),
        _collect(removals, motion, sizes, slices, "exact_motion", facts),
    )


def _removals(sizes: DiTConfig, slices: int) -> list[_Removal]:
    """Every removal of a block, a head or an FFN slice, block by block."""
    found: list[_Removal] = []
    for b, (self_heads, cross_heads, neurons) in enumerate(sizes.widths):
        found.append(("blocks", b, []))
        found += [("self_heads", b, [h]) for h in range(self_heads)]
        found += [("cross_heads", b, [h]) for h in range(cross_heads)]
        found += [("ffn", b, list(range(i, j))) for i, j in slice_bounds(neurons, slices)]
    return found


def _without(
    model: MobiVidTransformer3DModel, states: list[Tensor], context: Context, removal: _Removal, features: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """(velocity, states after `features`) of the model without some units, going on from the inputs of its blocks."""
    kind, b, picked = removal
    x = states[b]
    if kind != "blocks":
        gates = Gates.ones(model.sizes)
        getattr(gates, kind)[b][picked] = 0
        x = model.run_block(b, x, context, gates)
    after = [*states[1 : b + 1], x]  # each block
    for i in range(b + 1, len(model.blocks)):
        after.append(model.run_block(i, after[-1], context))
    return model.leave(after[-1], context), [after[f] for f in features]


def _motion_share(error: Tensor) -> Tensor:
    """(B,) share of an error's power, (B, C, t, h, w), that is not constant over latent time."""
    whole = error.square().flatten(1).sum(1)
    moving = (error - error.mean(2, keepdim=True)).square().flatten(1).sum(1)
    return moving / whole.clamp_min(torch.finfo(whole.dtype).tiny)


def _collect(removals: list[_Removal], values: Tensor, sizes: DiTConfig, slices: int, name: str, facts: dict) -> Scores:
    found = {(kind, b): [] for kind in ("blocks", *sizes.units) for b in range(sizes.blocks)}
    for (kind, b, _), value in zip(removals, values.tolist(), strict=True):
        found[kind, b].append(value)
    widths = {**sizes.units, "ffn": (slices,) * sizes.blocks}
    parts = {
        kind: tuple(np.array(found[kind, b] or [np.nan] * n) for b, n in enumerate(own)) for kind, own in widths.items()
    }
    blocks = np.concatenate([found["blocks", b] or [np.nan] for b in range(sizes.blocks)])
    return Scores(blocks, **parts, estimator=name, **facts)


def gauss_newton_sensitivity(
    model: MobiVidTransformer3DModel,  # in eval mode
    reference: Reference,  # its own answers on the calibration set (only inputs and scales are used)
    probes: int = 4,  # random sign vectors a batch; the error falls as 1/sqrt(probes * samples)
    slices: int = FFN_SLICES,
    seed: int = 0,
) -> tuple[Scores, Scores]:
    """Second-order KD scores of all blocks, heads and single neurons from `probes` backward passes a batch.

    The second result has `ffn` per contiguous slice removed as a whole, for comparison with `exact_sensitivity`.
    """
    began, blocks = time.perf_counter(), len(model.blocks)
    generator = torch.Generator().manual_seed(seed)
    sums: list[Tensor] = []
    with frozen(model):
        for _, batch in reference.calibration.batches(BATCH):
            gates = Gates.ones(model.sizes, batch=len(batch), device=batch.noisy.device).requires_grad_()
            sample, features = forward(model, batch, reference.feature_blocks, gates)
            for gradients in probe_gradients((sample, *features), gates.tensors(), reference, probes, generator):
                sliced = [_slice_sums(g, slices) for g in gradients[2 * blocks : 3 * blocks]]
                sums = added(sums, [g.double().square().sum(0) for g in (*gradients, *sliced)])
    means = [s / (probes * len(reference.calibration)) for s in sums]
    notes = {"samples": len(reference.calibration), "probes": probes, "features": list(reference.feature_blocks)}
    facts = {"passes": 1 + 2 * probes, "seconds": time.perf_counter() - began, "notes": notes}
    neurons = scores_of(means[: 3 * blocks + 1], f"gauss_newton_{probes}", facts)
    return neurons, replace(neurons, ffn=tuple(s.cpu().numpy() for s in means[3 * blocks + 1 :]))


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Without gradients of the parameters that have them otherwise."""
    trained = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def added(sums: list[Tensor], found: list[Tensor]) -> list[Tensor]:
    """Sums, none at first, with the next batch's values added."""
    return [a + b for a, b in zip(sums, found, strict=True)] if sums else found


def probe_gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], reference: Reference, probes: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, ...]]:
    """Gradients of sum_k sqrt(s_k) v_k . y_k by `inputs` for each probe, with y the velocity and the features."""
    for p in range(probes):
        signs = [torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1 for y in outputs]
        total = sum((s**0.5) * (v * y).sum() for s, v, y in zip(reference.scales(), signs, outputs, strict=True))
        yield torch.autograd.grad(total, inputs, retain_graph=p < probes - 1, materialize_grads=True)


def _slice_sums(gradient: Tensor, slices: int) -> Tensor:
    """(B, F) -> (B, slices): the gradient of one gate on a whole slice."""
    return torch.stack([gradient[:, i:j].sum(1) for i, j in slice_bounds(gradient.shape[1], slices)], dim=1)


def scores_of(values: list[Tensor], estimator: str, facts: dict) -> Scores:
    """Values of all units, in the order of `Gates.tensors`, as scores."""
    *units, blocks = (v.double().cpu().numpy() for v in values)
    n = len(blocks)
    kinds = (tuple(units[i * n : (i + 1) * n]) for i in range(3))
    return Scores(blocks, *kinds, estimator=estimator, **facts)


def first_order_taylor(model: MobiVidTransformer3DModel, reference: Reference) -> float:
    """Largest |dL/dg| of the KD loss over all units with student = teacher: zero, so it cannot rank them."""
    _, batch = next(reference.calibration.batches(BATCH))
    gates = Gates.ones(model.sizes).requires_grad_()
    output, features = forward(model, batch, reference.feature_blocks, gates)
    # The targets come from the same weights without gates, so that no rounding difference enters.
    with torch.no_grad():
        target, states = forward(model, batch, reference.feature_blocks, Gates.ones(model.sizes))
    pairs = zip((output, *features), (target, *states), reference.scales(), strict=True)
    loss = sum(scale * (s - t).square().sum() for s, t, scale in pairs) / len(batch)
    return max(float(g.abs().max()) for g in torch.autograd.grad(loss, gates.tensors()) if g.numel())

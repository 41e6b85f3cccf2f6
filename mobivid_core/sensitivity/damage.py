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
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.gates import Gates
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import BATCH, Reference, forward
from mobivid_core.sensitivity.scores import Scores, slice_bounds, unit_widths
from mobivid_core.sensitivity.staged import Context, enter, leave, run_block

_KINDS = {"blocks": ("blocks",), "heads": ("self_heads", "cross_heads"), "ffn": ("ffn",)}
FFN_SLICES = 8


@dataclass(frozen=True)
class ExactSensitivity:
    """Result of one-at-a-time removal."""

    scores: Scores  # rise of the KD loss; `ffn` by slice
    motion_share: Scores  # share (0 to 1) of each removal's output error that varies over latent time


@torch.no_grad()
def exact_sensitivity(
    model: MobiVidTransformer3DModel,
    reference: Reference,
    units: Sequence[str] = ("blocks", "heads", "ffn"),
    slices: int = FFN_SLICES,
    progress: bool = True,
) -> ExactSensitivity:
    """Remove every unit in turn and measure the KD loss.

    Args:
        model: The teacher.
        reference: Its own answers on the calibration set.
        units: Any of "blocks", "heads", "ffn".
        slices: Contiguous FFN slices a block (single neurons would take a pass each).
        progress: Show a bar.

    Returns:
        Scores (nan for kinds not asked for) and motion shares. `passes` counts forward equivalents over the set; states
        before the changed block are reused, so a removal in block b of n costs (n - b) / n.
    """
    unknown = set(units) - set(_KINDS)
    if unknown:
        raise ParameterError(f"unknown units {sorted(unknown)}; use any of {sorted(_KINDS)}")
    began, sizes = time.perf_counter(), model.sizes
    probes = [p for p in _one_at_a_time(sizes, slices) if p[0] in {k for u in units for k in _KINDS[u]}]
    total, motion = torch.zeros(len(probes)), torch.zeros(len(probes))
    size = len(reference.calibration)
    bar = tqdm(
        total=len(probes) * -(-size // BATCH),
        desc="exact sensitivity",
        disable=not progress,
        mininterval=2.0,
        ascii=True,
    )
    for rows, batch in reference.calibration.batches(BATCH):
        x, context = enter(model, batch)
        states = []
        for b in range(sizes.blocks):
            states.append(x)
            x = run_block(model, b, x, context)
        for p, (kind, b, picked) in enumerate(probes):
            output, features = _without(model, states, context, kind, b, picked, reference.feature_blocks)
            total[p] += reference.damage(rows, output, features).sum() / size
            motion[p] += _motion_share(output - reference.output[rows]).sum() / size
            bar.update()
    bar.close()
    passes = 1 + sum((sizes.blocks - b) / sizes.blocks for _, b, _ in probes)
    notes = {"samples": size, "ffn_slices": slices, "features": list(reference.feature_blocks)}
    facts = {"passes": passes, "seconds": time.perf_counter() - began, "notes": notes}
    return ExactSensitivity(
        _collect(probes, total, sizes, slices, "exact", facts),
        _collect(probes, motion, sizes, slices, "exact_motion", facts),
    )


def _one_at_a_time(sizes: DiTConfig, slices: int) -> list[tuple[str, int, list[int]]]:
    """(kind, block, indices switched off together) of every removal."""
    probes: list[tuple[str, int, list[int]]] = []
    for b in range(sizes.blocks):
        probes.append(("blocks", b, []))
        probes.extend(("self_heads", b, [h]) for h in range(sizes.self_heads[b]))
        probes.extend(("cross_heads", b, [h]) for h in range(sizes.cross_heads[b]))
        probes.extend(("ffn", b, list(range(i, j))) for i, j in slice_bounds(sizes.ffn_widths[b], slices))
    return probes


def _without(
    model: MobiVidTransformer3DModel,
    states: list[Tensor],
    context: Context,
    kind: str,
    b: int,
    picked: list[int],
    feature_blocks: Sequence[int],
) -> tuple[Tensor, list[Tensor]]:
    """(velocity, features) of the model without one unit, going on from the stored states."""
    x = states[b]
    if kind != "blocks":
        gates = Gates.ones(model.sizes)
        getattr(gates, kind)[b][picked] = 0
        x = run_block(model, b, x, context, gates)
    features = {b: x, **{f: states[f + 1] for f in feature_blocks if f < b}}
    for i in range(b + 1, len(states)):
        x = run_block(model, i, x, context)
        features[i] = x
    return leave(model, x, context), [features[f] for f in feature_blocks]


def _motion_share(error: Tensor) -> Tensor:
    """(B,) share of an error's power, (B, C, t, h, w), that is not constant over latent time."""
    whole = error.square().flatten(1).sum(1)
    moving = (error - error.mean(2, keepdim=True)).square().flatten(1).sum(1)
    return moving / whole.clamp_min(torch.finfo(whole.dtype).tiny)


def _collect(
    probes: list[tuple[str, int, list[int]]], values: Tensor, sizes: DiTConfig, slices: int, name: str, facts: dict
) -> Scores:
    widths = unit_widths(sizes) | {"ffn": (slices,) * sizes.blocks}
    found = {kind: [[] for _ in range(sizes.blocks)] for kind in ("blocks", *widths)}
    for (kind, b, _), value in zip(probes, values.tolist(), strict=False):
        found[kind][b].append(value)
    blocks = np.array([v[0] if v else np.nan for v in found["blocks"]])
    parts = {
        k: tuple(np.array(v) if v else np.full(w[b], np.nan) for b, v in enumerate(found[k])) for k, w in widths.items()
    }
    return Scores(blocks, **parts, estimator=name, **facts)


def gauss_newton_sensitivity(
    model: MobiVidTransformer3DModel, reference: Reference, probes: int = 4, slices: int = FFN_SLICES, seed: int = 0
) -> tuple[Scores, Scores]:
    """Second-order KD scores of all blocks, heads and single neurons from `probes` backward passes a batch.

    Args:
        model: In eval mode.
        reference: Its own answers on the calibration set (only inputs and scales are used).
        probes: Random sign vectors a batch; the error falls as 1/sqrt(probes * samples).
        slices: FFN slices of the second result.
        seed: Of the probes.

    Returns:
        (scores per neuron, the same with `ffn` per contiguous slice removed as a whole, for comparison with
        `exact_sensitivity`).
    """
    began, blocks = time.perf_counter(), len(model.blocks)
    generator = torch.Generator().manual_seed(seed)
    sums: list[Tensor] = []
    with frozen(model):
        for _, batch in reference.calibration.batches(BATCH):
            for gradients in _probe_gradients(model, batch, reference, probes, generator):
                sliced = [_slice_sums(g, slices) for g in gradients[2 * blocks : 3 * blocks]]
                sums = added(sums, [g.double().square().sum(0) for g in (*gradients, *sliced)])
    means = [s / (probes * len(reference.calibration)) for s in sums]
    facts = {
        "passes": 1 + 2 * probes,
        "seconds": time.perf_counter() - began,
        "notes": {"samples": len(reference.calibration), "probes": probes, "features": list(reference.feature_blocks)},
    }
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


def _probe_gradients(
    model: MobiVidTransformer3DModel,
    batch: CalibrationSet,
    reference: Reference,
    probes: int,
    generator: torch.Generator,
) -> Iterator[list[Tensor]]:
    """Per-sample gradients (B, units) of sum_k sqrt(s_k) v_k . y_k by gate, in the order of `Gates.tensors`."""
    gates = Gates.ones(model.sizes, batch=len(batch), device=batch.noisy.device).requires_grad_()
    sample, features = forward(model, batch, reference.feature_blocks, gates)
    outputs = (sample, *features)
    for p in range(probes):
        signs = [torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1 for y in outputs]
        total = sum((s**0.5) * (v * y).sum() for s, v, y in zip(reference.scales(), signs, outputs, strict=True))
        found = torch.autograd.grad(total, gates.tensors(), retain_graph=p < probes - 1, allow_unused=True)
        yield [torch.zeros_like(g) if d is None else d for d, g in zip(found, gates.tensors(), strict=True)]


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
    rows, batch = next(reference.calibration.batches(BATCH))
    gates = Gates.ones(model.sizes).requires_grad_()
    output, features = forward(model, batch, reference.feature_blocks, gates)
    # The targets come from the same weights without gates, so that no rounding difference enters.
    with torch.no_grad():
        targets = forward(model, batch, reference.feature_blocks, Gates.ones(model.sizes))
    pairs = zip((output, *features), (targets[0], *targets[1]), reference.scales(), strict=True)
    loss = sum(scale * (s - t).square().sum() for s, t, scale in pairs) / len(batch)
    gradients = torch.autograd.grad(loss, gates.tensors())
    return max(float(g.abs().max()) for g in gradients if g.numel())

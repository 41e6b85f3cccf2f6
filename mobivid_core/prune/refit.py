"""Closed-form refit: the remaining out-projections are solved for, layer by layer, on calibration activations.

Pruning drops columns of every output projection (attention out, FFN down). The columns that stay can take over much of
what the dropped ones did: for each layer in order, with a the inputs the *pruned* model gives it and gate m from adaLN,

    min over W, b of  sum |m * (W a + b) - r|^2 + ridge |(W, b) - (W0, b0)|^2

r is what brings the residual stream to the teacher's, so that errors of earlier layers and removed blocks are corrected
too. m differs by sample and channel, so every output channel c has its own Gram matrix G_c = sum m_c^2 a a^T. Forming
and factoring them all costs channels x inputs^3; conjugate gradients need only products with the activations, and
converge in about ten steps when preconditioned by the one matrix that is right if m were the same for all channels up
to a factor (with m = 1, in one). The ridge pulls towards the pruned weights, hence the calibration error of a layer
does not rise. The refit starts the recovery, it does not replace it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.errors import ParameterError
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.models.dit import SUBLAYERS, Context, MobiVidTransformer3DModel, TransformerBlock, modulated
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import BATCH

#: Inputs (B, N, k), gate (B, D) or None, and targets (B, N, D) of a layer, as `solve_gated` takes them.
Problem = tuple[Tensor, Tensor | None, Tensor]


@dataclass(frozen=True)
class RefitReport:
    """Relative error |m * out - r|^2 / |r|^2 of each refitted layer on the calibration set."""

    layers: list[str]  # names such as "blocks.3.ffn" and "proj_out"
    before: list[float]  # with the pruned weights (given the refitted layers before it)
    after: list[float]  # with the solved weights


@torch.no_grad()
def refit(
    student: MobiVidTransformer3DModel,  # `prune(teacher, plan)`; left untouched
    teacher: MobiVidTransformer3DModel,  # the plan's source model
    plan: PruningPlan,
    calibration: CalibrationSet,  # at least a few times as many tokens as the widest layer has inputs
    *,
    ridge: float = 1e-2,  # pull towards the pruned weights, relative to the mean diagonal of the Gram matrix
    progress: bool = True,
    batch: int = BATCH,  # samples computed together
    folder: Path | None = None,  # keeps solutions, to resume: one for each combination of student, plan and calibration
    only: Sequence[str] | None = None,  # names of layers to solve for; the refit ends with the last of them
) -> tuple[MobiVidTransformer3DModel, RefitReport]:
    """Solve for every output projection of a pruned model: (a refitted copy, report by layer)."""
    if student.sizes != plan.sizes or teacher.sizes != plan.source:
        raise ParameterError(
            "student and teacher do not match the plan; pass prune(teacher, plan), teacher and that plan"
        )
    student, errors = copy.deepcopy(student).eval(), {}

    def solve(name: str, layer: nn.Linear, problem: Callable[[], Problem]) -> None:
        if only is None or name in only:
            errors[name] = _solution(layer, problem, ridge, folder and folder / f"{name}.safetensors")

    def report() -> RefitReport:
        return RefitReport(list(errors), *([pair[i] for pair in errors.values()] for i in range(2)))

    entries = (student.enter(*part.inputs) for _, part in calibration.batches(batch))
    states, contexts = map(list, zip(*entries, strict=True))
    # the student's states equal the teacher's until the first pruned layer
    theirs = _after_blocks(teacher, range(plan.keep_blocks[0]), states, contexts)
    for i, b in enumerate(tqdm(plan.keep_blocks, desc="refit", disable=not progress, ascii=True, mininterval=2.0)):
        inside = [_teacher_block(teacher, b, x, c) for x, c in zip(theirs, contexts, strict=True)]
        goals = [list(states) for states in zip(*inside, strict=True)]
        # the FFN also makes up for the removed blocks that follow
        goals[-1] = theirs = _after_blocks(teacher, range(b + 1, plan.stands_for(i) + 1), goals[-1], contexts)
        block = student.blocks[i]
        for name, layer, goal in zip(SUBLAYERS, block.projections(), goals, strict=True):
            ran = [_run_sublayer(block, name, x, c) for x, c in zip(states, contexts, strict=True)]
            inner, gates = [inner for inner, _, _ in ran], [gate for _, _, gate in ran]
            solve(f"blocks.{i}.{name}", layer, partial(_problem, inner, gates, states, goal))
            states = [_advance(x, layer(a), m) for x, a, m in zip(states, inner, gates, strict=True)]
        if only and len(errors) == len(only):
            return student, report()

    def velocities() -> Problem:
        inner = [student.exit_input(x, context).float() for x, context in zip(states, contexts, strict=True)]
        goals = [teacher.exit_input(x, context) for x, context in zip(theirs, contexts, strict=True)]
        return torch.cat(inner), None, torch.cat([teacher.proj_out(goal).float() for goal in goals])

    solve("proj_out", student.proj_out, velocities)
    return student, report()


def _teacher_block(teacher: MobiVidTransformer3DModel, b: int, x: Tensor, context: Context) -> list[Tensor]:
    """Residual stream after each of block b's three sublayers."""
    stream = [x]
    for name in SUBLAYERS:
        _, out, gate = _run_sublayer(teacher.blocks[b], name, stream[-1], context)
        stream.append(_advance(stream[-1], out, gate))
    return stream[1:]


def _after_blocks(
    teacher: MobiVidTransformer3DModel, blocks: range, states: list[Tensor], contexts: list[Context]
) -> list[Tensor]:
    """The teacher's residual stream of each batch after some of its blocks."""
    for b in blocks:
        states = [_teacher_block(teacher, b, x, c)[-1] for x, c in zip(states, contexts, strict=True)]
    return states


def _run_sublayer(
    block: TransformerBlock, name: str, x: Tensor, context: Context
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input (B, N, k) and output (B, N, hidden) of a sublayer's projection, and its gate (B, 1, hidden) or None."""
    shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = block.vectors(context.modulation)
    projection = block.projections()[SUBLAYERS.index(name)]
    # A layer without units never calls its projection: only its bias is left.
    caught = [x.new_zeros(*x.shape[:2], 0)]
    handle = projection.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        if name == "attn1":
            out, gate = block.attn1(modulated(x, shift_attn, scale_attn), table=context.table), gate_attn
        elif name == "attn2":
            out, gate = block.attn2(x, context=context.text, mask=context.mask), None
        else:
            out, gate = block.ffn(modulated(x, shift_ffn, scale_ffn)), gate_ffn
    finally:
        handle.remove()
    return caught[-1], out, gate


def _advance(x: Tensor, out: Tensor, gate: Tensor | None) -> Tensor:
    """The residual stream after a sublayer."""
    return x + (out if gate is None else gate * out)


def _problem(inner: list[Tensor], gates: list[Tensor | None], states: list[Tensor], goals: list[Tensor]) -> Problem:
    # float32 whatever the model computes in: normal equations square the rounding.
    wanted = torch.cat([goal.float() - start.float() for goal, start in zip(goals, states, strict=True)])
    gate = None if gates[0] is None else torch.cat(gates)[:, 0].float()
    return torch.cat([a.float() for a in inner]), gate, wanted


def _solution(
    layer: nn.Linear, problem: Callable[[], Problem], ridge: float, place: Path | None
) -> tuple[float, float]:
    """Solve for a layer, or take the solution kept at a place; relative errors before and after."""
    kept = read_tensors(place)
    if kept and kept["weight"].shape == layer.weight.shape:
        layer.weight.copy_(kept["weight"])
        layer.bias.copy_(kept["bias"])
        return tuple(kept["errors"].tolist())
    errors = solve_gated(layer, *problem(), ridge)
    if place is not None:
        kept = {"weight": layer.weight, "bias": layer.bias, "errors": torch.tensor(errors)}
        write_bytes(place, save({k: v.detach().cpu().contiguous() for k, v in kept.items()}))
    return errors


@torch.no_grad()
def solve_gated(
    layer: torch.nn.Linear,  # Whose W and b are solved for
    inner: Tensor,  # (B, N, k) inputs a
    gate: Tensor | None,  # (B, D) multiplier m of the outputs, or None for 1
    wanted: Tensor,  # (B, N, D) targets r
    ridge: float,  # pull towards the layer's weights, relative to the mean diagonal of each channel's Gram matrix
    steps: int = 12,  # most steps of conjugate gradients
    tolerance: float = 1e-2,  # stop when the gradient has fallen to this share of its first norm
) -> tuple[float, float]:
    """Write the solution into `layer` (k inputs, D outputs), starting from its weights.

    Returns:
        Relative errors |m * (W a + b) - r|^2 / |r|^2 (before, after).
    """
    inner = torch.cat([inner, inner.new_ones(*inner.shape[:2], 1)], dim=-1)
    gate = wanted.new_ones(1, 1, wanted.shape[-1]) if gate is None else gate[:, None]
    start = torch.cat([layer.weight, layer.bias[:, None]], dim=1).T.to(inner.dtype)  # (k + 1, D)
    residual = wanted - gate * (inner @ start)
    change = _conjugate_gradients(inner, gate, residual, ridge, steps, tolerance)
    solved = (start + change).T
    layer.weight.copy_(solved[:, :-1])
    layer.bias.copy_(solved[:, -1])
    power = wanted.double().square().sum().clamp_min(1e-30)
    after = residual - gate * (inner @ change)
    return float(residual.double().square().sum() / power), float(after.double().square().sum() / power)


def _conjugate_gradients(
    inner: Tensor, gate: Tensor, residual: Tensor, ridge: float, steps: int, tolerance: float
) -> Tensor:
    """Change of the weights (k + 1, D); every column is a system of its own."""
    rows = inner.flatten(0, 1)
    weight = gate.square().expand(len(inner), -1, -1)  # (S, 1, D)
    # Mean over channels, then each channel's share of it: G_c is about share_c * gram.
    per_sample, share = weight.mean(-1, keepdim=True), weight.mean((0, 1)) / weight.mean().clamp_min(1e-30)
    gram = ((per_sample * inner).flatten(0, 1).T @ rows).double()
    pull = ridge * gram.diagonal().mean().clamp_min(1e-12)
    factor = torch.linalg.cholesky(gram + pull * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    share = share.clamp_min(1e-12)

    def apply(x: Tensor) -> Tensor:
        return rows.T @ (weight * (inner @ x)).flatten(0, 1) + (pull * share).to(x.dtype) * x

    def precondition(x: Tensor) -> Tensor:
        return (torch.cholesky_solve(x.double(), factor) / share).to(x.dtype)

    change = torch.zeros_like(rows.T @ residual.flatten(0, 1))
    gradient = rows.T @ (gate * residual).flatten(0, 1)
    first = gradient.norm(dim=0).clamp_min(1e-30)
    direction = step = precondition(gradient)
    slope = (gradient * step).sum(0)
    for _ in range(steps):
        applied = apply(direction)
        length = slope / (direction * applied).sum(0).clamp_min(1e-30)
        change = change + length * direction
        gradient = gradient - length * applied
        if bool((gradient.norm(dim=0) <= tolerance * first).all()):
            break
        step = precondition(gradient)
        slope, previous = (gradient * step).sum(0), slope
        direction = step + slope / previous.clamp_min(1e-30) * direction
    return change

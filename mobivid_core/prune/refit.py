"""Closed-form refit: the remaining out-projections are solved for, layer by layer, on calibration activations.

Pruning drops columns of every output projection (attention out, FFN down). The columns that stay can take over much of
what the dropped ones did: for each layer in order, with a the inputs the *pruned* model gives it and gate m from adaLN,

    min over W, b of  sum |m * (W a + b) - r|^2 + ridge |(W, b) - (W0, b0)|^2

r is what brings the residual stream to the teacher's, so that errors of earlier layers and removed blocks are corrected
too. m differs by sample and channel, so each output channel has its own normal equations: conjugate gradients solve
them all at once, preconditioned by one shared Cholesky factor (`prune.least_squares`). The ridge pulls towards the
pruned weights, hence the calibration error of a layer does not rise.

The refit starts the recovery, it does not replace it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.errors import ParameterError
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.least_squares import solve_gated
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import BATCH
from mobivid_core.sensitivity.staged import (
    SUBLAYERS,
    Context,
    advance,
    enter,
    final_input,
    output_projection,
    run_sublayer,
)

#: Inputs (B, N, k), gate (B, D) or None, and targets (B, N, D) of a layer, as `solve_gated` takes them.
Problem = tuple[Tensor, Tensor | None, Tensor]


@dataclass
class RefitReport:
    """Relative error of each refitted layer's target on the calibration set, before and after."""

    layers: list[str] = field(default_factory=list)  # names such as "blocks.3.ffn" and "proj_out"
    # |m * out - r|^2 / |r|^2 with the pruned weights (given the refitted layers before it)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)  # the same with the solved weights
    folder: Path | None = None  # keeps the solutions; None keeps none
    only: tuple[str, ...] | None = None  # layers that are solved for; None: all

    def solve(self, name: str, layer: nn.Linear, problem: Callable[[], Problem], ridge: float) -> None:
        """Solve for a layer, or take the solution kept in the folder."""
        if self.only is not None and name not in self.only:
            return
        place = None if self.folder is None else self.folder / f"{name}.safetensors"
        kept = read_tensors(place)
        if kept and kept["weight"].shape == layer.weight.shape:
            layer.weight.copy_(kept["weight"])
            layer.bias.copy_(kept["bias"])
            errors = kept["errors"].tolist()
        else:
            errors = solve_gated(layer, *problem(), ridge)
            if place is not None:
                kept = {"weight": layer.weight, "bias": layer.bias, "errors": torch.tensor(errors)}
                write_bytes(place, save({k: v.detach().cpu().contiguous() for k, v in kept.items()}))
        self.layers.append(name)
        self.before.append(errors[0])
        self.after.append(errors[1])


@torch.no_grad()
def refit(
    student: MobiVidTransformer3DModel,
    teacher: MobiVidTransformer3DModel,
    plan: PruningPlan,
    calibration: CalibrationSet,
    *,
    ridge: float = 1e-2,
    progress: bool = True,
    batch: int = BATCH,
    folder: Path | None = None,
    only: Sequence[str] | None = None,
) -> tuple[MobiVidTransformer3DModel, RefitReport]:
    """Solve for every output projection of a pruned model: (a refitted copy, report by layer).

    Args:
        student: `prune(teacher, plan)`; left untouched.
        teacher: The plan's source model.
        plan: Says which teacher block each student block came from.
        calibration: Inputs; at least a few times as many tokens as the widest layer has inputs.
        ridge: Pull towards the pruned weights, relative to the mean diagonal of the Gram matrix.
        progress: Show a bar.
        batch: Samples computed together.
        folder: Keeps each layer's solution, so that an interrupted refit resumes; every combination of student, plan
            and calibration needs a folder of its own.
        only: Layers to solve for, by their names in the report; the refit ends with the last of them. None: all.
    """
    if student.sizes != plan.sizes or teacher.sizes != plan.source:
        raise ParameterError(
            "student and teacher do not match the plan; pass prune(teacher, plan), teacher and that plan"
        )
    student, report = copy.deepcopy(student).eval(), RefitReport(folder=folder, only=only and tuple(only))
    parts = [part for _, part in calibration.batches(batch)]
    states, contexts = map(list, zip(*(enter(student, part) for part in parts), strict=True))
    # the student's states equal the teacher's until the first pruned layer
    theirs = _after_blocks(teacher, range(plan.keep_blocks[0]), states, contexts)
    for i, b in enumerate(tqdm(plan.keep_blocks, desc="refit", disable=not progress, ascii=True, mininterval=2.0)):
        inside = [_teacher_block(teacher, b, x, c) for x, c in zip(theirs, contexts, strict=True)]
        goals = [list(states) for states in zip(*inside, strict=True)]
        # the FFN also makes up for the removed blocks that follow
        goals[-1] = theirs = _after_blocks(teacher, range(b + 1, plan.stands_for(i) + 1), goals[-1], contexts)
        for name, goal in zip(SUBLAYERS, goals, strict=True):
            states = _refit_sublayer(student, i, name, states, contexts, goal, ridge, report)
        if only and len(report.layers) == len(only):
            return student, report
    _refit_output(student, teacher, states, theirs, contexts, ridge, report)
    return student, report


def _teacher_block(teacher: MobiVidTransformer3DModel, b: int, x: Tensor, context: Context) -> list[Tensor]:
    """Residual stream after each of block b's three sublayers."""
    stream = []
    for name in SUBLAYERS:
        _, out, gate = run_sublayer(teacher.blocks[b], name, x, context)
        x = advance(x, out, gate)
        stream.append(x)
    return stream


def _after_blocks(
    teacher: MobiVidTransformer3DModel, blocks: range, states: list[Tensor], contexts: list[Context]
) -> list[Tensor]:
    """The teacher's residual stream of each batch after some of its blocks."""
    for b in blocks:
        states = [_teacher_block(teacher, b, x, c)[-1] for x, c in zip(states, contexts, strict=True)]
    return states


def _refit_sublayer(
    student: MobiVidTransformer3DModel,
    i: int,
    name: str,
    states: list[Tensor],
    contexts: list[Context],
    goals: list[Tensor],
    ridge: float,
    report: RefitReport,
) -> list[Tensor]:
    """Solve one output projection; returns the residual stream after it."""
    block = student.blocks[i]
    layer = output_projection(block, name)
    runs = [run_sublayer(block, name, x, c) for x, c in zip(states, contexts, strict=True)]

    def problem() -> Problem:
        # float32 whatever the model computes in: normal equations square the rounding.
        inner, gates = torch.cat([run[0].float() for run in runs]), [run[2] for run in runs]
        wanted = torch.cat([goal.float() - start.float() for goal, start in zip(goals, states, strict=True)])
        return inner, None if gates[0] is None else torch.cat(gates).float(), wanted

    report.solve(f"blocks.{i}.{name}", layer, problem, ridge)
    return [advance(x, layer(inner), gate) for x, (inner, _, gate) in zip(states, runs, strict=True)]


def _refit_output(
    student: MobiVidTransformer3DModel,
    teacher: MobiVidTransformer3DModel,
    states: list[Tensor],
    theirs: list[Tensor],
    contexts: list[Context],
    ridge: float,
    report: RefitReport,
) -> None:
    """The output projection itself, against the teacher's velocity."""

    def problem() -> Problem:
        inner = [final_input(student, x, context).float() for x, context in zip(states, contexts, strict=True)]
        goals = [final_input(teacher, x, context) for x, context in zip(theirs, contexts, strict=True)]
        return torch.cat(inner), None, torch.cat([teacher.proj_out(goal).float() for goal in goals])

    report.solve("proj_out", student.proj_out, problem, ridge)

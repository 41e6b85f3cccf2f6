"""Trajectory regression: at four noise levels the student learns the chord of the guided teacher's path.

Paper: the anchor of step distillation. At sigma_i the target is u_i = (x_i - x_{i+1}) / (sigma_i - sigma_{i+1}):
one Euler step of the student then lands on x_{i+1}. The teacher's path is guided, the student's is not, so the
guidance is folded into its weights.

Each chord starts from a state of the teacher (teacher forcing) or of the student itself (`own_states.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.distill.trajectory import STUDENT_STEPS, Trajectories, student_sigmas
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import per_sample
from mobivid_core.flow.sampling import guided_velocity, solver_path


def chord_targets(trajectories: Trajectories, rows: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Starting states (B, C, t, h, w), noise levels (B,) and target velocities of chosen chords.

    `rows` (B,) says which trajectory, `levels` (B,) which of the student's steps, 0 (noise) to 3.
    """
    start, end = trajectories.states[rows, levels], trajectories.targets[rows, levels]
    sigma, following = trajectories.sigmas[levels], trajectories.sigmas[levels + 1]
    return start, sigma, (start - end) / per_sample(sigma - following, start)


def regression_loss(student: nn.Module, trajectories: Trajectories, rows: Tensor, levels: Tensor) -> Tensor:
    """Mean squared velocity error over chords, unguided (scalar)."""
    x, sigma, target = chord_targets(trajectories, rows, levels)
    return functional.mse_loss(guided_velocity(student, trajectories.condition.take(rows))(x, sigma), target)


@torch.no_grad()
def chord_errors(student: nn.Module, trajectories: Trajectories) -> list[float]:
    """Mean squared velocity error at each of the student's steps, over all trajectories."""
    rows = torch.arange(len(trajectories), device=trajectories.device)
    levels = [torch.full_like(rows, level) for level in range(STUDENT_STEPS)]
    return [float(regression_loss(student, trajectories, rows, level)) for level in levels]


def draw_chords(count: int, trajectories: Trajectories, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random rows, and levels that cover the student's steps evenly ((count,) each).

    `trajectories` may be files of them: their number and device are all that is asked for.
    """
    rows = torch.randint(len(trajectories), (count,), generator=generator)
    levels = torch.arange(count) + int(torch.randint(STUDENT_STEPS, (1,), generator=generator))
    return rows.to(trajectories.device), (levels % STUDENT_STEPS).to(trajectories.device)


def unroll(student: nn.Module, condition: Condition, noise: Tensor, gradient_steps: int = STUDENT_STEPS) -> Tensor:
    """The student's sample (B, C, t, h, w): four unguided Euler steps on the textbook grid from `noise` of that shape.

    Gradients flow through the last `gradient_steps` steps.
    """
    sigmas, velocity = student_sigmas(), guided_velocity(student, condition)
    first = max(STUDENT_STEPS - gradient_steps, 0)
    with torch.no_grad():
        x = solver_path(velocity, noise, sigmas[: first + 1])[-1]
    return solver_path(velocity, x, sigmas[first:])[-1]

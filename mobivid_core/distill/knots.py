"""Optimised time steps: the four best noise levels of a training-free sampler, chosen on validation captions.

Paper: the baseline that step distillation has to beat, at its best setting. Two searches:

* knots by dynamic programming: along the full sampler's fine trajectory, one Euler step from sigma_i to sigma_j misses
  the state at sigma_j by a measurable amount; the four steps with the smallest sum of squared misses are found exactly;
* time shifts of the textbook grid.

Each solver then takes the grid on which its samples come closest to the full sampler's, from the same noises. What is
reported is measured on test captions.

Simplified: misses of single steps are added up, though later steps change what earlier ones left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mobivid_core.data.captions import caption
from mobivid_core.data.render import label_of
from mobivid_core.distill.trajectory import step_generator, student_sigmas
from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance
from mobivid_core.flow.sampling import SOLVERS, guided_velocity, solver_path
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.text import encode_captions

SHIFTS = (0.5, 0.7, 1.0, 1.5, 2.5)


def best_knots(states: Tensor, sigmas: Tensor, steps: int = 4) -> tuple[float, ...]:
    """Noise levels of the `steps` Euler steps that follow a fine Euler trajectory most closely, by dynamic programming.

    Args:
        states: (n + 1, B, C, t, h, w) states of the fine trajectory; its velocities follow from neighbours.
        sigmas: (n + 1,) their noise levels, 1 down to 0.
        steps: At most n.

    Returns:
        `steps` + 1 of the noise levels, 1 and 0 among them.

    Raises:
        ParameterError: More steps than the trajectory has.
    """
    n = len(states) - 1
    if not 1 <= steps <= n:
        raise ParameterError(f"{steps} steps cannot be chosen from a trajectory of {n}; take a finer one")
    miss = np.full((n + 1, n + 1), np.inf)
    for i in range(n):
        velocity = (states[i] - states[i + 1]) / (sigmas[i] - sigmas[i + 1])
        for j in range(i + 1, n + 1):
            reached = states[i] - (sigmas[i] - sigmas[j]) * velocity
            miss[i, j] = (reached - states[j]).square().mean().item()
    cost, before = np.full((steps + 1, n + 1), np.inf), np.zeros((steps + 1, n + 1), dtype=int)
    cost[0, 0] = 0.0
    for k in range(1, steps + 1):
        ways = cost[k - 1][:, None] + miss
        cost[k], before[k] = ways.min(axis=0), ways.argmin(axis=0)
    path = [n]
    for k in range(steps, 0, -1):
        path.append(int(before[k, path[-1]]))
    return tuple(float(sigmas[i]) for i in reversed(path))


def validation_condition(count: int, device: torch.device | str = "cpu") -> Condition:
    """The first `count` validation captions, encoded."""
    return encode_captions([caption(label_of("val", i)) for i in range(count)], device)


@dataclass(frozen=True)
class KnotSearch:
    """What a search found."""

    # One row a solver and grid: latent error to the full sampler's samples, noise levels, whether it is best
    table: pd.DataFrame
    best: dict[str, Sampler]  # the best sampler of each solver


@torch.no_grad()
def search_knots(
    model: nn.Module,  # the teacher
    condition: Condition,  # B captions
    shape: tuple[int, ...],  # (C, t, h, w) of a latent
    *,
    guidance: float | Guidance,  # of all samplers
    steps: int = 4,
    full_steps: int = 20,  # Euler steps of the trajectory that they should follow
    shifts: Iterable[float] = SHIFTS,  # time shifts of the textbook grid; 1 is the grid itself
    seed: int = 0,  # of the noises
) -> KnotSearch:
    """The best grid of each solver on the captions of `condition` (validation captions, never the reported ones)."""
    device = next(model.parameters()).device
    noise = torch.randn((len(condition), *shape), generator=step_generator(seed, len(condition))).to(device)
    fine = student_sigmas(full_steps)
    states = torch.stack(solver_path(guided_velocity(model, condition, guidance), noise, fine))
    grids = [{"shift": s} for s in shifts]
    if steps <= full_steps:
        grids.append({"grid": "optimised steps", "knots": best_knots(states, fine, steps)})
    scale, rows, best = states[-1].square().mean(), [], {}
    for solver in SOLVERS:
        tried = [Sampler(solver, steps, guidance, shows_scale=True, **grid) for grid in grids]
        errors = [((s.sample(model, condition, noise) - states[-1]).square().mean() / scale).item() for s in tried]
        best[solver] = tried[int(np.argmin(errors))]
        rows += [
            {
                "solver": SOLVERS[solver][0],
                "grid": s.grid if s.shift == 1 else f"shift {s.shift:g}",
                "noise levels": " ".join(f"{k:.3g}" for k in s.sigmas().tolist()),
                "error to the full sampler": error,
                "best": s is best[solver],
            }
            for s, error in zip(tried, errors, strict=True)
        ]
    return KnotSearch(pd.DataFrame(rows), best)

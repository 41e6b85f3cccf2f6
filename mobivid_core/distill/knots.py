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

import numpy as np
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

#: Time shifts of the textbook grid; 1 is the grid itself.
SHIFTS = (0.5, 0.7, 1.0, 1.5, 2.5)


def best_knots(states: Tensor, sigmas: Tensor, steps: int = 4) -> tuple[float, ...]:
    """Noise levels of the `steps` Euler steps that follow a fine Euler trajectory most closely, by dynamic programming.

    They are `steps` + 1 of its noise levels (n + 1,), 1 and 0 among them; its states are (n + 1, B, C, t, h, w).

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
    cost, before = np.full(n + 1, np.inf), []  # smallest sum of misses to each level, and the level it comes from
    cost[0] = 0.0
    for _ in range(steps):
        ways = cost[:, None] + miss
        before.append(ways.argmin(axis=0))
        cost = ways.min(axis=0)
    path = [n]
    for origin in reversed(before):
        path.append(int(origin[path[-1]]))
    return tuple(float(sigmas[i]) for i in reversed(path))


def validation_condition(count: int, device: torch.device | str = "cpu") -> Condition:
    """The first `count` validation captions, encoded."""
    return encode_captions([caption(label_of("val", i)) for i in range(count)], device)


@torch.no_grad()
def grid_errors(
    model: nn.Module,  # the teacher
    condition: Condition,  # B captions: validation captions, never the reported ones
    shape: tuple[int, ...],  # (C, t, h, w) of a latent
    *,
    guidance: float | Guidance,  # of all samplers
    steps: int = 4,
    full_steps: int = 20,  # Euler steps of the trajectory that they should follow
    seed: int = 0,  # of the noises
) -> dict[Sampler, float]:
    """Every solver on every grid -> how far its samples are from the full sampler's, as a share of their square."""
    device = next(model.parameters()).device
    noise = torch.randn((len(condition), *shape), generator=step_generator(seed, len(condition))).to(device)
    fine = student_sigmas(full_steps)
    states = torch.stack(solver_path(guided_velocity(model, condition, guidance), noise, fine))
    grids = [{"shift": s} for s in SHIFTS]
    if steps <= full_steps:
        grids.append({"grid": "optimised steps", "knots": best_knots(states, fine, steps)})
    tried = [Sampler(solver, steps, guidance, shows_scale=True, **grid) for solver in SOLVERS for grid in grids]
    scale = states[-1].square().mean()
    return {s: ((s.sample(model, condition, noise) - states[-1]).square().mean() / scale).item() for s in tried}

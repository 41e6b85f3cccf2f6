"""A flow with a closed-form velocity: two Gaussian bumps on a line.

It is called as the diffusion transformer is, so that the sampler of the videos runs on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import TIMESTEP_SCALE
from mobivid_core.flow.sampling import guided_velocity, sample_latents, solver_path, textbook_grid


@dataclass(frozen=True)
class LineMixture:
    """Data on a line: a mixture of Gaussians."""

    means: tuple[float, ...] = (-1.5, 1.0)
    widths: tuple[float, ...] = (0.25, 0.25)  # standard deviations
    weights: tuple[float, ...] = (0.4, 0.6)  # add up to 1

    def __call__(self, x: Tensor, timestep: Tensor, text: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Velocity E[noise - x0 | x_sigma = x], the exact minimiser of the flow-matching loss.

        Within one bump x0 and noise are jointly Gaussian with x_sigma = (1 - sigma) x0 + sigma noise, so both
        expectations are linear in x (B, ...); the bumps are mixed by their probability given x. Captions are ignored.
        """
        sigma = (timestep / TIMESTEP_SCALE).view(-1, *[1] * (x.ndim - 1)).to(x)
        logs, velocities = [], []
        for mean, width, weight in zip(self.means, self.widths, self.weights, strict=True):
            variance = (1 - sigma) ** 2 * width**2 + sigma**2
            off = x - (1 - sigma) * mean
            velocities.append((sigma - (1 - sigma) * width**2) / variance * off - mean)
            logs.append(torch.log(torch.tensor(weight)) - 0.5 * off**2 / variance - 0.5 * variance.log())
        share = torch.stack(logs).softmax(0)
        return (share * torch.stack(velocities)).sum(0)

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """True samples (n,)."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(torch.tensor(self.weights), n, replacement=True, generator=generator)
        return torch.tensor(self.means)[which] + torch.tensor(self.widths)[which] * torch.randn(n, generator=generator)

    def sample(self, n: int, steps: int, seed: int = 0, solver: str = "euler") -> Tensor:
        """Samples (n,) by the videos' sampler with the exact velocity: the only error is the solver's."""
        noise = torch.randn((n, 1, 1, 1, 1), generator=torch.Generator().manual_seed(seed))
        return sample_latents(self, _captions(n), noise, steps, solver=solver, batch=n).flatten()

    def paths(self, starts: Sequence[float], steps: int) -> Tensor:
        """Euler paths (steps + 1, len(starts)) from noise to data."""
        velocity = guided_velocity(self, _captions(len(starts)))
        return torch.stack(solver_path(velocity, torch.tensor(starts), textbook_grid(steps)))


def _captions(n: int) -> Condition:
    return Condition(torch.zeros(n, 1, 1), torch.ones(n, 1, dtype=torch.bool))

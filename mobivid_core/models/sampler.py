"""A way of sampling: solver, steps, guidance and grid. Run on any velocity model, from captions to latents.

The grid trap: diffusers' `FlowMatchEulerDiscreteScheduler.set_timesteps(4)` gives noise levels 1, .667, .334, .001, 0.
Its fourth step goes from .001 to 0 and does nothing (a time shift is applied twice to that lower end, and cannot help
it). The textbook grid is 1, .75, .5, .25, 0. A baseline on the default grid is understated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.sampling import SOLVERS, sample_latents, shift_sigmas, textbook_grid
from mobivid_core.models.text import CaptionSampler, on_captions

GRIDS = ("textbook", "diffusers default", "optimised steps")


@dataclass(frozen=True)
class Sampler:
    """One way to sample."""

    solver: str  # one of `flow.sampling.SOLVERS`
    steps: int
    guidance: float | Guidance = 1.0  # scale, 1 is unguided and costs half; or a `Guidance`
    grid: str = "textbook"  # "diffusers default" (Euler only), or "optimised steps", which are given as `knots`
    shift: float = 1.0  # time shift of the grid: sigma' = shift sigma / (1 + (shift - 1) sigma)
    shows_scale: bool = False  # the name has the guidance scale, for tables with more than one
    knots: tuple[float, ...] = ()  # `steps` + 1 noise levels of "optimised steps", 1 first and 0 last

    def __post_init__(self) -> None:
        for what, given, known in (("grid", self.grid, GRIDS), ("solver", self.solver, SOLVERS)):
            if given not in known:
                raise ParameterError(f"unknown {what} {given!r}; the {what}s are {', '.join(known)}")
        if self.solver != "euler" and self.grid == "diffusers default":
            raise ParameterError(f"only the Euler solver has a default grid here, got {self.solver!r}")
        if (self.grid == "optimised steps") != bool(self.knots):
            raise ParameterError(f'knots belong to the grid "optimised steps", got {self.grid!r} and {self.knots}')
        falling = sorted(set(self.knots), reverse=True) == list(self.knots)
        if self.knots and (not falling or (len(self.knots), self.knots[0], self.knots[-1]) != (self.steps + 1, 1, 0)):
            raise ParameterError(f"{self.steps} steps take {self.steps + 1} knots that fall from 1 to 0: {self.knots}")

    @property
    def name(self) -> str:
        """For tables, e.g. "UniPC-4, guided"."""
        grid = {"textbook": "", "diffusers default": ", diffusers default grid"}.get(self.grid, f", {self.grid}")
        shift = "" if self.shift == 1.0 else f", shift {self.shift:g}"
        guided = f"guidance {self.guidance:g}" if self.shows_scale else "guided"
        end = guided if as_guidance(self.guidance).needed else "unguided"
        return f"{SOLVERS[self.solver][0]}-{self.steps}{grid}{shift}, {end}"

    @property
    def evaluations(self) -> int:
        """Network evaluations for one clip: two a guided step."""
        return as_guidance(self.guidance).evaluations(self.sigmas()[:-1].tolist())

    def sigmas(self) -> Tensor:
        """(steps + 1,) noise levels, ending in 0."""
        if self.knots:
            return torch.tensor(self.knots)
        if self.grid == "textbook":
            return shift_sigmas(textbook_grid(self.steps), self.shift)
        return default_grid(self.steps, self.shift)

    def sample(self, model: nn.Module, condition: Condition, noise: Tensor, *, batch: int = 64) -> Tensor:
        """Latents (N, C, t, h, w) of N captions from noise of that shape, `batch` clips computed together."""
        how = {"guidance": self.guidance, "solver": self.solver, "batch": batch}
        return sample_latents(model, condition, noise, self.sigmas(), **how)

    def on(self, model: nn.Module, *, batch: int = 32) -> CaptionSampler:
        """This sampler of one model as a function from (captions, noise) to latents, as `evaluate` takes it."""
        return on_captions(lambda condition, noise: self.sample(model, condition, noise, batch=batch), model)


def default_grid(steps: int, shift: float = 1.0) -> Tensor:
    """(steps + 1,) the noise levels of diffusers' Euler scheduler after `set_timesteps(steps)`: the trap above."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.float().cpu()

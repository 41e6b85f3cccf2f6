"""The two best known alternatives to adversarial training: consistency, and distribution matching (DMD2).

Paper: not part of it; reviewers compare with them (question R4.1).

* consistency: every state of the guided teacher's path should lead to the same sample. At sigma_i the student's sample
  is f(x_i) = x_i - sigma_i v(x_i). It learns f(x_i) = f(x_{i+1}) along the teacher's trajectory, with no gradient
  through the later state; at the last step the target is the teacher's own sample. Errors of late steps propagate to
  early ones; regression trains on the teacher's states alone.
* matching: the student's re-noised sample is judged by the guided teacher and by a second denoiser, trained throughout
  on the student's samples. Where both agree, the two distributions have the same score; the difference of their clean
  estimates is the direction in which the student moves.

Simplified: the consistency target comes from the student's own weights (no averaged network), at the student's four
noise levels alone; matching updates the second network once an update of the student (published recipes: five times),
without an adversarial term.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.distill.adversarial import draw_noise
from mobivid_core.distill.regression import unroll
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import STUDENT_STEPS, Trajectories, step_generator, student_sigmas
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import clean_estimate, interpolate, per_sample
from mobivid_core.flow.sampling import guided_velocity
from mobivid_core.models.text import CaptionSampler, on_captions


def consistency_loss(student: nn.Module, trajectories: Trajectories, rows: Tensor, levels: Tensor) -> Tensor:
    """Mean squared velocity error towards the sample that the student makes of the next state (scalar).

    Arguments as for `regression_loss`, and on its scale: errors of the sample are divided by sigma.
    """
    velocity = guided_velocity(student, trajectories.condition.take(rows))
    x, following = trajectories.states[rows, levels], trajectories.states[rows, levels + 1]
    sigma, lower = trajectories.sigmas[levels], trajectories.sigmas[levels + 1]
    with torch.no_grad():
        # At sigma 0 this is the teacher's sample itself, whatever the student says there.
        sample = clean_estimate(following, velocity(following, lower), lower)
    return functional.mse_loss(velocity(x, sigma), (x - sample) / per_sample(sigma, x))


@torch.no_grad()
def consistency_sample(student: nn.Module, condition: Condition, noise: Tensor, *, seed: int = 0) -> Tensor:
    """The sampler of this loss: jump to the sample, add fresh noise of the next level, repeat.

    From (B, C, t, h, w) noise to latents of the same shape; `seed` is of the fresh noise.
    """
    velocity, x, generator = guided_velocity(student, condition), noise, step_generator(seed, STUDENT_STEPS)
    for sigma, following in pairwise(student_sigmas().tolist()):
        sample = clean_estimate(x, velocity(x, sigma), sigma)
        fresh = torch.randn(noise.shape, generator=generator).to(noise.device)
        x = (1 - following) * sample + following * fresh
    return x


def consistency_sampler(student: nn.Module) -> CaptionSampler:
    """`consistency_sample` as a function from (captions, noise) to latents, for `Evaluator.evaluate_sampler`."""
    return on_captions(lambda condition, noise: consistency_sample(student, condition, noise), student)


def matching_loss(samples: Tensor, teacher_clean: Tensor, student_clean: Tensor) -> Tensor:
    """Scalar with gradient (student_clean - teacher_clean) / mean |samples - teacher_clean|, over the elements.

    All (B, ...): the student's samples, with gradient, and clean estimates of them, re-noised, by the guided teacher
    and by the network that is trained on them.
    """
    with torch.no_grad():
        away = (samples - teacher_clean).abs().mean(dim=tuple(range(1, samples.ndim)), keepdim=True)
        target = samples - (student_clean - teacher_clean) / (away + 1e-6)
    return 0.5 * functional.mse_loss(samples, target)


@dataclass(frozen=True)
class Matching:
    """The distribution-matching term, in the place of a `Contest` in the trainer."""

    teacher: nn.Module
    heads: nn.Module  # velocity model trained on the student's samples; starts as the teacher
    trajectories: Trajectories  # where captions come from, on the models' device, and the guidance scale
    settings: DistillSettings

    def draw(self, generator: torch.Generator) -> tuple[Condition, Tensor, Tensor, Tensor]:
        """B captions, the student's starting noise, and sigma (B,) and noise that re-noise its samples."""
        states = self.trajectories.states
        rows = torch.randint(len(states), (self.settings.batch,), generator=generator)
        start = torch.randn((len(rows), *states.shape[2:]), generator=generator).to(states.device)
        condition = self.trajectories.condition.take(rows.to(states.device))
        return condition, start, *draw_noise(start, self.settings, generator)

    def heads_terms(
        self, student: nn.Module, condition: Condition, start: Tensor, sigma: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """Flow-matching loss on the student's samples, as `loss` and what to log of it."""
        with torch.no_grad():
            samples = unroll(student, condition, start)
            noisy = interpolate(samples, noise, sigma)
            velocity = (noisy - samples) / per_sample(sigma, noisy)
        loss = functional.mse_loss(guided_velocity(self.heads, condition)(noisy, sigma), velocity)
        return {"loss": loss, "discriminator": loss.detach()}

    def student_term(
        self, student: nn.Module, condition: Condition, start: Tensor, sigma: Tensor, noise: Tensor
    ) -> Tensor:
        """`matching_loss` of fresh samples (gradients reach the student only)."""
        samples = unroll(student, condition, start, self.settings.gradient_steps)
        with torch.no_grad():
            noisy = interpolate(samples, noise, sigma)
            guided = guided_velocity(self.teacher, condition, self.trajectories.guidance)(noisy, sigma)
            followed = guided_velocity(self.heads, condition)(noisy, sigma)
        return matching_loss(samples, *(clean_estimate(noisy, v, sigma) for v in (guided, followed)))


def make_matching(teacher: nn.Module, trajectories: Trajectories, settings: DistillSettings) -> Matching:
    """The term with a fresh copy of the teacher as the trained network, on the teacher's device."""
    network = copy.deepcopy(teacher).requires_grad_(True)
    return Matching(teacher, network, trajectories.to(next(teacher.parameters()).device), settings)

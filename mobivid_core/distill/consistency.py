"""Consistency-style distillation: every state of the guided teacher's path should lead to the same sample.

Paper: not part of it; an alternative to adversarial training that reviewers compare with (question R4.1). At
sigma_i the student's sample is f(x_i) = x_i - sigma_i v(x_i). It learns f(x_i) = f(x_{i+1}) along the teacher's
trajectory, with no gradient through the later state; at the last step the target is the teacher's own sample. Errors
of late steps propagate to early ones; regression trains on the teacher's states alone.

Simplified: the student's own weights give the target (no second, averaged network); the four noise levels are the
student's steps and nothing between them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.distill.trajectory import STUDENT_STEPS, Trajectories, step_generator, student_sigmas
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import clean_estimate
from mobivid_core.flow.sampling import guided_velocity
from mobivid_core.models.text import CaptionSampler, on_captions


def consistency_loss(student: nn.Module, trajectories: Trajectories, rows: Tensor, levels: Tensor) -> Tensor:
    """Mean squared velocity error towards the sample that the student makes of the next state (scalar).

    Arguments as for `regression_loss`, and on its scale: errors of the sample are divided by sigma.
    """
    text, mask = trajectories.condition.text[rows], trajectories.condition.mask[rows]
    x, following = trajectories.states[rows, levels], trajectories.states[rows, levels + 1]
    sigma, lower = trajectories.sigmas[levels], trajectories.sigmas[levels + 1]
    with torch.no_grad():
        # At sigma 0 this is the teacher's sample itself, whatever the student says there.
        sample = clean_estimate(following, student(following, 1000.0 * lower, text, mask).sample, lower)
    target = (x - sample) / sigma.reshape(-1, *(1,) * (x.ndim - 1))
    return functional.mse_loss(student(x, 1000.0 * sigma, text, mask).sample, target)


@torch.no_grad()
def consistency_sample(student: nn.Module, condition: Condition, noise: Tensor, *, seed: int = 0) -> Tensor:
    """The sampler of this loss: jump to the sample, add fresh noise of the next level, repeat.

    From (B, C, t, h, w) noise to latents of the same shape; `seed` is of the fresh noise.
    """
    velocity, x, generator = guided_velocity(student, condition, 1.0), noise, step_generator(seed, STUDENT_STEPS)
    for sigma, following in pairwise(student_sigmas().tolist()):
        sample = clean_estimate(x, velocity(x, sigma), sigma)
        fresh = torch.randn(noise.shape, generator=generator).to(noise.device)
        x = (1 - following) * sample + following * fresh
    return x


def consistency_sampler(student: nn.Module, seed: int = 0) -> CaptionSampler:
    """`consistency_sample` as a function from (captions, noise) to latents, for `Evaluator.evaluate_sampler`."""
    return on_captions(lambda condition, noise: consistency_sample(student, condition, noise, seed=seed), student)

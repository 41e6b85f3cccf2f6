"""Distribution matching (DMD2): move samples to where the guided teacher's density is higher than the student's.

Paper: not part of it; the strongest published alternative to adversarial features (question R4.1). Two denoisers are
evaluated on the student's re-noised sample: the frozen guided teacher, and a second network that is trained throughout
on the student's samples. Where both agree, the two distributions have the same score; the difference of their clean
estimates is the direction in which the student moves.

It takes the place of a `Contest` in the trainer: `heads` is the network trained on the student's samples.

Simplified: one update of that network for each of the student's (published recipes take five), no adversarial term.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.distill.adversarial import renoise
from mobivid_core.distill.regression import unroll
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import Trajectories
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import clean_estimate
from mobivid_core.flow.sampling import guided_velocity


def matching_loss(samples: Tensor, teacher_clean: Tensor, student_clean: Tensor) -> Tensor:
    """Scalar with gradient (student_clean - teacher_clean) / mean |samples - teacher_clean|, over the elements.

    Args:
        samples: (B, ...) the student's samples, with gradient.
        teacher_clean: (B, ...) the guided teacher's clean estimate of the re-noised samples.
        student_clean: (B, ...) that of the network trained on the student's samples.
    """
    with torch.no_grad():
        away = (samples - teacher_clean).abs().mean(dim=tuple(range(1, samples.ndim)), keepdim=True)
        target = samples - (student_clean - teacher_clean) / (away + 1e-6)
    return 0.5 * functional.mse_loss(samples, target)


@dataclass(frozen=True)
class Matching:
    """The distribution-matching term, with the interface of `Contest`."""

    teacher: nn.Module
    heads: nn.Module  # velocity model trained on the student's samples; starts as the teacher
    trajectories: Trajectories  # where captions come from, on the models' device, and the guidance scale
    settings: DistillSettings

    def heads_loss(self, student: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Flow-matching loss on the student's samples, and what to log of it."""
        with torch.no_grad():
            samples, condition = self._samples(student, generator, None)
            noisy, sigma = renoise(samples, self.settings.renoise_low, self.settings.renoise_high, generator)
            velocity = (noisy - samples) / sigma.reshape(-1, *(1,) * (samples.ndim - 1))
        loss = functional.mse_loss(guided_velocity(self.heads, condition)(noisy, sigma), velocity)
        return loss, {"discriminator": loss.item()}

    def student_loss(self, student: nn.Module, generator: torch.Generator) -> Tensor:
        """`matching_loss` of fresh samples (gradients reach the student only)."""
        samples, condition = self._samples(student, generator, self.settings.gradient_steps)
        with torch.no_grad():
            noisy, sigma = renoise(samples, self.settings.renoise_low, self.settings.renoise_high, generator)
            guided = guided_velocity(self.teacher, condition, self.trajectories.guidance)(noisy, sigma)
            teacher_clean = clean_estimate(noisy, guided, sigma)
            student_clean = clean_estimate(noisy, guided_velocity(self.heads, condition)(noisy, sigma), sigma)
        return matching_loss(samples, teacher_clean, student_clean)

    def _samples(
        self, student: nn.Module, generator: torch.Generator, gradient_steps: int | None
    ) -> tuple[Tensor, Condition]:
        """Student samples from fresh noise, and their captions."""
        states = self.trajectories.states
        rows = torch.randint(len(states), (self.settings.batch,), generator=generator)
        noise = torch.randn((len(rows), *states.shape[2:]), generator=generator).to(states.device)
        condition = self.trajectories.condition.take(rows.to(states.device))
        return unroll(student, condition, noise, gradient_steps), condition


def make_matching(teacher: nn.Module, trajectories: Trajectories, settings: DistillSettings) -> Matching:
    """The term with a fresh copy of the teacher as the trained network, on the teacher's device."""
    network = copy.deepcopy(teacher).requires_grad_(True)
    return Matching(teacher, network, trajectories.to(next(teacher.parameters()).device), settings)

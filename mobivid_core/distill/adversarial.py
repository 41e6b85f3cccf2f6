"""Adversarial losses, the gradient penalty, and the real batch.

Paper: adversarial step distillation with real and synthetic data mixed (claims C30, C31; question R4.4).

* hinge: D minimises relu(1 - D(real)) + relu(1 + D(fake)), G minimises -D(fake);
* relativistic: D minimises softplus(D(fake) - D(real)), G the reverse (pairs real and fake of one batch);
* approximate R1: E[(D(x + s e) - D(x))^2] / s^2 over Gaussian e tends to |grad D(x)|^2 as s -> 0: no second
  derivative is needed, which attention kernels lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.distill.discriminator import TeacherDiscriminator
from mobivid_core.distill.regression import unroll
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import Trajectories
from mobivid_core.errors import ParameterError
from mobivid_core.flow.path import normal

if TYPE_CHECKING:
    from mobivid_core.data.latents import LatentDataset

LOSSES = ("hinge", "relativistic")


def discriminator_loss(real: Tensor, fake: Tensor, kind: str = "hinge") -> Tensor:
    """What the discriminator minimises; logits (B, K) each, scalar out."""
    _check(kind)
    if kind == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    return functional.softplus(fake - real).mean()


def generator_loss(fake: Tensor, real: Tensor | None = None, kind: str = "hinge") -> Tensor:
    """What the generator minimises; `real` (B, K) is needed by the relativistic loss only.

    Raises:
        ParameterError: The relativistic loss without real logits, or an unknown kind.
    """
    _check(kind)
    if kind == "hinge":
        return -fake.mean()
    if real is None:
        raise ParameterError("the relativistic generator loss compares with real logits: pass `real`")
    return functional.softplus(real - fake).mean()


def approximate_r1(
    critic: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor, *, scale: float, generator: torch.Generator
) -> Tensor:
    """Finite-difference estimate of the mean over logits of |d logit / d x|^2.

    Args:
        critic: (B, ...) -> (B, K) logits.
        x: Where the gradient is taken.
        logits: critic(x), so that it is not computed twice.
        scale: Standard deviation of the perturbation; the bias shrinks with its square.
        generator: CPU random stream.

    Returns:
        Scalar.
    """
    direction = normal(x.shape, generator, x.device)
    return ((critic(x + scale * direction) - logits) / scale).square().mean()


@dataclass(frozen=True)
class RealPool:
    """What the discriminator is shown as real: encoded clips, and teacher samples.

    Attributes:
        dataset: Encoded real clips with their captions.
        trajectories: The teacher's samples (endpoints) with their captions, on the models' device.
        synthetic_share: Part of each batch that comes from the teacher, 0 to 1.
    """

    dataset: LatentDataset
    trajectories: Trajectories
    synthetic_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.synthetic_share <= 1:
            raise ParameterError(f"synthetic_share is a part of the batch, 0 to 1, got {self.synthetic_share}")

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A batch: the last round(count x synthetic_share) rows are teacher samples.

        Returns:
            (latents (count, C, t, h, w), text (count, L, D), mask (count, L)).
        """
        synthetic = round(count * self.synthetic_share)
        captions, device = self.trajectories.condition, self.trajectories.states.device
        own = torch.randint(len(self.dataset), (count - synthetic,), generator=generator)
        made = torch.randint(len(self.trajectories), (synthetic,), generator=generator).to(device)
        latents, text, mask = (part.to(device) for part in self.dataset.batch(own, generator))
        return (
            torch.cat([latents, self.trajectories.endpoints[made]]),
            torch.cat([text, captions.text[made]]),
            torch.cat([mask, captions.mask[made]]),
        )


def renoise(x: Tensor, low: float, high: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Latents at a random noise level each: x_sigma = (1 - sigma) x + sigma noise.

    Args:
        x: (B, C, t, h, w).
        low, high: Range of sigma, drawn uniformly.
        generator: CPU random stream.

    Returns:
        (noisy latents, sigma (B,)).
    """
    sigma = (low + (high - low) * torch.rand(len(x), generator=generator)).to(x.device)
    noise = normal(x.shape, generator, x.device)
    scale = sigma.reshape(-1, *(1,) * (x.ndim - 1))
    return (1 - scale) * x + scale * noise, sigma


@dataclass(frozen=True)
class Contest:
    """Student against discriminator on re-noised samples.

    Attributes:
        heads: The discriminator.
        pool: Real batches.
        settings: Batch, loss, noise levels, penalty.
    """

    heads: TeacherDiscriminator
    pool: RealPool
    settings: DistillSettings

    def heads_loss(self, student: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What one update of the heads minimises, and what to log of it."""
        s = self.settings
        with torch.no_grad():
            noisy = self._fake(student, generator, None)
        real, text, mask = self.pool.draw(s.batch, generator)
        real, sigma = renoise(real, s.renoise_low, s.renoise_high, generator)
        real_logits, fake_logits = self.heads(real, sigma, text, mask), self.heads(*noisy)
        loss, penalty = discriminator_loss(real_logits, fake_logits, s.loss), real_logits.new_zeros(())
        if s.r1_weight > 0:
            penalty = approximate_r1(
                lambda x: self.heads(x, sigma, text, mask), real, real_logits, scale=s.r1_scale, generator=generator
            )
        row = {
            "discriminator": loss.item(),
            "real_logit": real_logits.mean().item(),
            "fake_logit": fake_logits.mean().item(),
            "r1": penalty.item(),
        }
        return loss + s.r1_weight * penalty, row

    def student_loss(self, student: nn.Module, generator: torch.Generator) -> Tensor:
        """How far the student's samples are from looking real (gradients reach the student only)."""
        s, real_logits = self.settings, None
        noisy = self._fake(student, generator, s.gradient_steps)
        self.heads.requires_grad_(False)
        try:
            if s.loss == "relativistic":
                real, text, mask = self.pool.draw(s.batch, generator)
                real, sigma = renoise(real, s.renoise_low, s.renoise_high, generator)
                with torch.no_grad():
                    real_logits = self.heads(real, sigma, text, mask)
            return generator_loss(self.heads(*noisy), real_logits, s.loss)
        finally:
            self.heads.requires_grad_(True)

    def _fake(
        self, student: nn.Module, generator: torch.Generator, gradient_steps: int | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Re-noised student samples from fresh noise: (noisy, sigma, text, mask)."""
        s, trajectories = self.settings, self.pool.trajectories
        rows = torch.randint(len(trajectories), (s.batch,), generator=generator)
        states = trajectories.states
        noise = normal((s.batch, *states.shape[2:]), generator, states.device)
        condition = trajectories.condition.take(rows.to(states.device))
        samples = unroll(student, condition, noise, gradient_steps)
        noisy, sigma = renoise(samples, s.renoise_low, s.renoise_high, generator)
        return noisy, sigma, condition.text, condition.mask


def _check(kind: str) -> None:
    """Refuse an unknown loss."""
    if kind not in LOSSES:
        raise ParameterError(f"unknown adversarial loss {kind!r}; the losses are {', '.join(LOSSES)}")

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
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.distill.discriminator import TeacherDiscriminator
from mobivid_core.distill.regression import unroll
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import Trajectories
from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import interpolate, normal

if TYPE_CHECKING:
    from mobivid_core.data.latents import LatentDataset

LOSSES = ("hinge", "relativistic")


def discriminator_loss(real: Tensor, fake: Tensor, kind: str = "hinge") -> Tensor:
    """What the discriminator minimises; logits (B, K) each, scalar out."""
    if kind not in LOSSES:
        raise ParameterError(f"unknown adversarial loss {kind!r}; the losses are {', '.join(LOSSES)}")
    if kind == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    return functional.softplus(fake - real).mean()


def generator_loss(fake: Tensor, real: Tensor | None = None, kind: str = "hinge") -> Tensor:
    """What the generator minimises, as above; only the relativistic loss needs `real`."""
    if kind == "hinge":
        return -fake.mean()
    if real is None:
        raise ParameterError("the relativistic generator loss compares with real logits: pass `real`")
    return functional.softplus(real - fake).mean()


def approximate_r1(
    critic: Callable[[Tensor], Tensor],  # (B, ...) -> (B, K) logits
    x: Tensor,  # (B, ...) where the gradient is taken
    logits: Tensor,  # critic(x), so that it is not computed twice
    direction: Tensor,  # standard normal, shaped as `x`
    scale: float,  # standard deviation of the perturbation; the bias shrinks with its square
) -> Tensor:
    """Finite-difference estimate of the mean over logits of |d logit / d x|^2 (scalar)."""
    return ((critic(x + scale * direction) - logits) / scale).square().mean()


@dataclass(frozen=True)
class RealPool:
    """What the discriminator is shown as real: encoded clips, and teacher samples."""

    dataset: LatentDataset  # encoded real clips with their captions
    trajectories: Trajectories  # the teacher's samples with their captions, on the models' device; may be files of them
    synthetic_share: float = 0.5  # part of each batch that comes from the teacher, 0 to 1

    def __post_init__(self) -> None:
        if not 0 <= self.synthetic_share <= 1:
            raise ParameterError(f"synthetic_share is a part of the batch, 0 to 1, got {self.synthetic_share}")

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(latents (count, C, t, h, w), text (count, L, D), mask (count, L)) of a batch.

        The last round(count x synthetic_share) rows are teacher samples.
        """
        synthetic, device = round(count * self.synthetic_share), self.trajectories.device
        own = torch.randint(len(self.dataset), (count - synthetic,), generator=generator)
        made = torch.randint(len(self.trajectories), (synthetic,), generator=generator).to(device)
        parts = [self.dataset.batch(own, generator)] if len(own) else []
        parts += [self.trajectories.shown(made)] if len(made) else []
        latents, text, mask = (torch.cat([part.to(device) for part in kind]) for kind in zip(*parts, strict=True))
        return latents, text, mask


def draw_noise(like: Tensor, settings: DistillSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(sigma (B,), noise (B, C, t, h, w)) to re-noise latents of the shape and device of `like`."""
    low, high = settings.renoise_low, settings.renoise_high
    sigma = (low + (high - low) * torch.rand(len(like), generator=generator)).to(like.device)
    return sigma, normal(like.shape, generator, like.device)


class Drawn(NamedTuple):
    """What an update draws, batch first: real clips, their captions, and the noises of each pair."""

    real: Tensor  # (B, C, t, h, w)
    text: Tensor  # (B, L, D)
    mask: Tensor  # (B, L)
    start: Tensor  # (B, C, t, h, w) the student's starting noise
    sigma: Tensor  # (B,) noise level at which both clips of a pair are judged
    noise: Tensor  # (B, C, t, h, w) that re-noises both
    direction: Tensor  # (B, C, t, h, w) of the heads' gradient penalty


@dataclass(frozen=True)
class Contest:
    """Student against discriminator on re-noised samples.

    Real and generated clips come in pairs of one caption, re-noised with the same noise: only the clips differ.
    Independent pairs taught the heads several times more slowly. All random parts of an update are drawn first, batch
    first, so that a batch can be split over processes.
    """

    heads: TeacherDiscriminator
    pool: RealPool
    settings: DistillSettings

    def draw(self, generator: torch.Generator) -> Drawn:
        """The random parts of `heads_terms` and `student_term`."""
        real, text, mask = self.pool.draw(self.settings.batch, generator)
        start = normal(real.shape, generator, real.device)
        noises = draw_noise(real, self.settings, generator)
        return Drawn(real, text, mask, start, *noises, normal(real.shape, generator, real.device))

    def heads_terms(self, student: nn.Module, *drawn: Tensor) -> dict[str, Tensor]:
        """`loss`, which an update of the heads minimises, and what to log of it; `drawn` may be a part of a batch."""
        s, pair = self.settings, Drawn(*drawn)
        with torch.no_grad():
            fake = unroll(student, Condition(pair.text, pair.mask), pair.start)
        real_logits, fake_logits = self._judged(pair.real, pair), self._judged(fake, pair)
        loss, penalty = discriminator_loss(real_logits, fake_logits, s.loss), real_logits.new_zeros(())
        if s.r1_weight > 0:
            noisy = interpolate(pair.real, pair.noise, pair.sigma)
            penalty = approximate_r1(
                lambda x: self.heads(x, pair.sigma, pair.text, pair.mask),
                noisy,
                real_logits,
                pair.direction,
                s.r1_scale,
            )
        return {
            "loss": loss + s.r1_weight * penalty,
            "discriminator": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
            "r1": penalty.detach(),
        }

    def student_term(self, student: nn.Module, *drawn: Tensor) -> Tensor:
        """Adversarial loss of the student's samples (gradients reach the student only)."""
        s, pair, real_logits = self.settings, Drawn(*drawn), None
        fake = unroll(student, Condition(pair.text, pair.mask), pair.start, s.gradient_steps)
        self.heads.requires_grad_(False)
        try:
            if s.loss == "relativistic":
                with torch.no_grad():
                    real_logits = self._judged(pair.real, pair)
            return generator_loss(self._judged(fake, pair), real_logits, s.loss)
        finally:
            self.heads.requires_grad_(True)

    def _judged(self, clips: Tensor, pair: Drawn) -> Tensor:
        """Logits of clips (B, C, t, h, w), re-noised as the pair is."""
        return self.heads(interpolate(clips, pair.noise, pair.sigma), pair.sigma, pair.text, pair.mask)

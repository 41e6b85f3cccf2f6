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
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.distill.discriminator import TeacherDiscriminator
from mobivid_core.distill.regression import unroll
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import interpolate, normal

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
    """What the generator minimises; only the relativistic loss needs `real` (B, K).

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
    critic: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor, direction: Tensor, scale: float
) -> Tensor:
    """Finite-difference estimate of the mean over logits of |d logit / d x|^2 (scalar).

    Args:
        critic: (B, ...) -> (B, K) logits.
        x: (B, ...) where the gradient is taken.
        logits: critic(x), so that it is not computed twice.
        direction: Standard normal, shaped as `x`.
        scale: Standard deviation of the perturbation; the bias shrinks with its square.
    """
    return ((critic(x + scale * direction) - logits) / scale).square().mean()


class TeacherSamples(Protocol):
    """Samples of the guided teacher with their captions: `Trajectories`, or files of them."""

    device: torch.device  # of the tensors from `shown`

    def __len__(self) -> int: ...

    def shown(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Samples (B, C, t, h, w), text (B, L, D) and mask (B, L) at `rows`."""


@dataclass(frozen=True)
class RealPool:
    """What the discriminator is shown as real: encoded clips, and teacher samples."""

    dataset: LatentDataset  # encoded real clips with their captions
    trajectories: TeacherSamples  # the teacher's samples (endpoints) with their captions, on the models' device
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


def renoise(x: Tensor, low: float, high: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Latents at noise levels drawn uniformly from [low, high): (noisy (B, C, t, h, w), sigma (B,))."""
    sigma, noise = _noise(x, low, high, generator)
    return interpolate(x, noise, sigma), sigma


def _noise(like: Tensor, low: float, high: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(sigma (B,), noise (B, C, t, h, w)) that re-noise latents of the shape and device of `like`."""
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

    @property
    def condition(self) -> Condition:
        """The captions."""
        return Condition(self.text, self.mask)


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

    def heads_loss(self, student: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What one update of the heads minimises, and what to log of it."""
        terms = self.heads_terms(student, *self.draw_for_heads(generator))
        return terms.pop("loss"), {name: value.item() for name, value in terms.items()}

    def student_loss(self, student: nn.Module, generator: torch.Generator) -> Tensor:
        """Adversarial loss of the student's samples (gradients reach the student only)."""
        return self.student_term(student, *self.draw_for_student(generator))

    def draw_for_student(self, generator: torch.Generator) -> Drawn:
        """The random parts of `student_term`."""
        s = self.settings
        real, text, mask = self.pool.draw(s.batch, generator)
        start = normal(real.shape, generator, real.device)
        return Drawn(real, text, mask, start, *_noise(real, s.renoise_low, s.renoise_high, generator))

    def draw_for_heads(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The random parts of `heads_terms`: `Drawn`, and the penalty's direction where there is a penalty."""
        drawn = self.draw_for_student(generator)
        return *drawn, *(
            [normal(drawn.real.shape, generator, drawn.real.device)] if self.settings.r1_weight > 0 else []
        )

    def heads_terms(self, student: nn.Module, *drawn: Tensor) -> dict[str, Tensor]:
        """`loss` of the heads, and its parts, on what `draw_for_heads` drew or a part of it."""
        s, pair, direction = self.settings, Drawn(*drawn[:6]), drawn[6:]
        with torch.no_grad():
            fake = unroll(student, pair.condition, pair.start)
        real_logits, fake_logits = self._judged(pair.real, pair), self._judged(fake, pair)
        loss, penalty = discriminator_loss(real_logits, fake_logits, s.loss), real_logits.new_zeros(())
        if direction:
            noisy = interpolate(pair.real, pair.noise, pair.sigma)
            penalty = approximate_r1(
                lambda x: self.heads(x, pair.sigma, pair.text, pair.mask), noisy, real_logits, *direction, s.r1_scale
            )
        return {
            "loss": loss + s.r1_weight * penalty,
            "discriminator": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
            "r1": penalty.detach(),
        }

    def student_term(self, student: nn.Module, *drawn: Tensor) -> Tensor:
        """`student_loss` on what `draw_for_student` drew or a part of it."""
        s, pair, real_logits = self.settings, Drawn(*drawn), None
        fake = unroll(student, pair.condition, pair.start, s.gradient_steps)
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


def _check(kind: str) -> None:
    if kind not in LOSSES:
        raise ParameterError(f"unknown adversarial loss {kind!r}; the losses are {', '.join(LOSSES)}")

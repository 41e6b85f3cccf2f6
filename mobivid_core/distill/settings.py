"""Settings of a distillation: steps, loss weights, rates, noise levels, recovery.

Paper: nothing is published about these; every value is this project's choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mobivid_core.distill.trajectory import STUDENT_STEPS
from mobivid_core.errors import ParameterError


@dataclass(frozen=True)
class DistillSettings:
    """How to distil."""

    steps: int  # generator updates in all
    batch: int = 32  # clips of one update
    anchor_weight: float = 1.0  # weight of trajectory regression; 0 leaves it out
    adversarial_weight: float = 0.0  # weight of the adversarial loss; 0 trains no discriminator
    loss: str = "hinge"  # "hinge" or "relativistic"
    rate: float = 1e-3  # peak rate of the student's AdamW; cosine decay to a twentieth
    muon: float = 0.0  # peak rate of Muon for the matrices of the student's blocks; 0 trains everything with AdamW
    rate_warmup: int = 10  # steps of linear rate warm-up
    discriminator_rate: float = 1e-3  # rate of the heads, constant
    discriminator_warmup: int = 20  # updates of the heads alone before the student's first one
    gradient_steps: int = STUDENT_STEPS  # last steps of the student that the adversarial gradient flows through
    r1_weight: float = 0.01  # weight of the approximate gradient penalty
    r1_scale: float = 0.05  # standard deviation of its perturbation
    renoise_low: float = 0.05  # range of noise levels of the discriminator's inputs
    renoise_high: float = 0.95
    ema: float = 0.98  # decay of the averaged student (ramped up from the start)
    clip_norm: float = 1.0  # gradient norm is clipped to this
    snapshot_every: int = 10  # steps between good states kept for recovery (and saved, with a folder)
    most_recoveries: int = 3  # returns to a good state before giving up
    seed: int = 0
    seconds: float | None = None  # ends the training earlier where that much time has been spent; None for steps alone

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ParameterError(f"training needs at least one step and one clip, got {self.steps} and {self.batch}")
        if self.anchor_weight <= 0 and self.adversarial_weight <= 0:
            raise ParameterError("nothing to train on: anchor_weight and adversarial_weight are both 0")

    def done_at(self, step: int, seconds: float = 0.0) -> float:
        """Share of the training that is done after so many steps and seconds, 0 to 1."""
        spent = seconds / self.seconds if self.seconds else 0.0
        return min(max(step / max(self.steps, 1), spent), 1.0)

    def share_at(self, step: int, seconds: float = 0.0) -> float:
        """What part of the peak rates a step takes: linear warm-up, cosine decay to a twentieth."""
        done = self.done_at(step, seconds)
        warm = min(1.0, (step + 1) / max(self.rate_warmup, 1))
        return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))

"""Transformer FLOPs of each stage of distillation, the common unit in which arms are compared.

Answers question R4.1 (cost of distillation). Counting, not timing: a backward pass costs two forward passes where
weights are trained and one where gradients only flow through frozen weights to the input. The heads (about a
hundredth of the teacher) and the optimiser are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobivid_core.distill.own_states import shown_evaluations
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import STUDENT_STEPS
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.sampling import textbook_sigmas


@dataclass(frozen=True)
class DistillCosts:
    """FLOPs of one forward pass at batch 1, and what follows from them."""

    student: float
    teacher: float
    checkpointed: bool = False  # backward passes compute the forward pass again, for less memory

    def trajectories(self, clips: int, steps: int, guidance: float | Guidance) -> float:
        """FLOPs of the teacher's trajectories."""
        return clips * as_guidance(guidance).evaluations(textbook_sigmas(steps)) * self.teacher

    def own_states(self, clips: int, guidance: float | Guidance) -> float:
        """FLOPs of the student's own states and the teacher's steps from each: the first chord is at hand already."""
        return clips * (STUDENT_STEPS * self.student + shown_evaluations(guidance) * self.teacher)

    def update(self, s: DistillSettings) -> float:
        """FLOPs of one generator update, with the heads' update that goes with it."""
        again, moved = int(self.checkpointed), min(s.gradient_steps, STUDENT_STEPS)
        flops = (3.0 + again) * self.student if s.anchor_weight > 0 else 0.0
        if s.adversarial_weight > 0:
            flops += self.heads_update(s) / s.batch
            flops += (STUDENT_STEPS + (2 + again) * moved) * self.student + (2 + again) * self.teacher
            flops += self.teacher if s.loss == "relativistic" else 0.0
        return s.batch * flops

    def heads_update(self, s: DistillSettings) -> float:
        """FLOPs of one update of the discriminator's heads: real, fake and perturbed batches."""
        passes = 3 if s.r1_weight > 0 else 2
        return s.batch * (STUDENT_STEPS * self.student + passes * self.teacher)

    def training(self, s: DistillSettings) -> float:
        """FLOPs of a whole training, the discriminator's warm-up included."""
        warm = s.discriminator_warmup * self.heads_update(s) if s.adversarial_weight > 0 else 0.0
        return s.steps * self.update(s) + warm

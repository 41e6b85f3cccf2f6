"""Recovery: a pruned student learns to answer as its teacher does (KD on output and features, real data optional).

Paper: KD-guided recovery after pruning. Teacher answers depend on (seed, step) alone, so all arms of a comparison see
the same batches, and `TeacherBank` computes each answer once for all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import DROP_TEXT, TIMESTEP_SCALE, interpolate, sample_sigmas, velocity
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.kd import FEATURE_WEIGHT, MatchedFeatures, kd_loss, with_data
from mobivid_core.train.loop import TrainResult, TrainSettings, train

if TYPE_CHECKING:
    from mobivid_core.data.latents import LatentDataset


@dataclass(frozen=True)
class RecoverySettings:
    """How to recover."""

    steps: int
    batch: int = 32  # clips a step
    learning_rate: float = 1e-3  # peak rate of AdamW; cosine decay to 2 %
    feature_weight: float = FEATURE_WEIGHT  # weight of the feature term; 0 leaves the output term alone
    # Weight of the flow-matching loss on the clips' own velocities; 0 learns from the teacher only
    data_weight: float = 0.0
    seed: int = 0  # seed of batches; `TeacherBank` draws from it


@dataclass(frozen=True)
class Lesson:
    """One batch with the teacher's answer."""

    noisy: Tensor  # (B, C, t, h, w)
    timestep: Tensor  # (B,)
    text: Tensor  # (B, L, D)
    mask: Tensor  # (B, L)
    velocity: Tensor  # (B, C, t, h, w) of the data
    output: Tensor  # (B, C, t, h, w) the teacher's
    features: dict[int, Tensor]  # teacher block -> (B, N, hidden)


class TeacherBank:
    """Batches of training clips with the frozen teacher's answers, by step.

    Args:
        features: Teacher blocks whose states may be asked for.
        seed: Batches are a function of (seed, step).
        keep: Remember answers (about 0.5 MB each for the miniature), for several students in turn.
    """

    def __init__(
        self,
        teacher: MobiVidTransformer3DModel,
        data: LatentDataset,
        batch: int,
        features: Sequence[int] = (),
        seed: int = 0,
        keep: bool = False,
    ) -> None:
        self.teacher, self.data, self.batch = teacher.eval(), data, batch
        self.features, self.seed = tuple(sorted(set(features))), seed
        self._kept: dict[int, Lesson] | None = {} if keep else None

    @torch.no_grad()
    def lesson(self, step: int) -> Lesson:
        """The batch of one step."""
        if self._kept is not None and step in self._kept:
            return self._kept[step]
        generator = torch.Generator().manual_seed((self.seed * 7_368_787 + 1_000 + step) % 2**63)
        clean, text, mask = self.data.draw(self.batch, generator)
        condition = Condition(text, mask, self.data.null_text, self.data.null_mask).dropped(DROP_TEXT, generator)
        text, mask = condition.text, condition.mask
        sigma, noise = sample_sigmas(self.batch, generator), torch.randn(clean.shape, generator=generator)
        noisy, timestep = interpolate(clean, noise, sigma), TIMESTEP_SCALE * sigma
        output, states = self.teacher(noisy, timestep, text, mask, feature_blocks=self.features, return_dict=False)
        features = dict(zip(self.features, states, strict=False))
        lesson = Lesson(noisy, timestep, text, mask, velocity(clean, noise), output, features)
        if self._kept is not None:
            self._kept[step] = lesson
        return lesson


def recover(
    student: MobiVidTransformer3DModel,  # `prune(teacher, plan)`, refitted or not; left untouched
    plan: PruningPlan,  # matches student blocks with teacher blocks
    bank: TeacherBank,  # teacher answers; its features must hold the matched blocks (`feature_blocks_for`)
    settings: RecoverySettings,
    *,
    progress: bool = True,
) -> tuple[MobiVidTransformer3DModel, TrainResult]:
    """Train a copy of a pruned student against its teacher; (recovered copy, training result with its log)."""
    student = copy.deepcopy(student).requires_grad_(True)
    matched = matched_features(plan) if settings.feature_weight else MatchedFeatures()

    def loss(step: int, _: torch.Generator) -> dict[str, Tensor]:
        lesson = bank.lesson(step)
        answer = student(
            lesson.noisy, lesson.timestep, lesson.text, lesson.mask, feature_blocks=matched.student, return_dict=False
        )
        terms = kd_loss(answer, (lesson.output, [lesson.features[b] for b in matched.teacher]), settings.feature_weight)
        return with_data(terms, answer[0], lesson.velocity, settings.data_weight)

    schedule = TrainSettings(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=max(1, settings.steps // 20),
        weight_decay=0.0,
        ema=0.0,
        log_every=max(1, settings.steps // 20),
        seed=settings.seed,
    )
    result = train(student, loss, schedule, title="recovery", progress=progress)
    return student.eval(), result


def matched_features(plan: PruningPlan) -> MatchedFeatures:
    """Three evenly spaced student blocks, and the teacher state that each is trained to reach.

    A kept block also does the work of the removed blocks that follow it, so its target is the teacher's state before
    the next kept block. The last block is left to the output term.
    """
    inner = len(plan.keep_blocks) - 1
    picked = sorted({round((i + 1) * inner / 4) for i in range(3)} & set(range(inner)))
    return MatchedFeatures(tuple(picked), tuple(plan.stands_for(i) for i in picked))


def feature_blocks_for(plans: Sequence[PruningPlan]) -> tuple[int, ...]:
    """Teacher blocks whose states any of the plans' students is matched with."""
    return tuple(sorted({b for plan in plans for b in matched_features(plan).teacher}))

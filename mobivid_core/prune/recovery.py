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
from mobivid_core.flow.path import flow_batch
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import FEATURE_WEIGHT, Reference, forward, kd_loss
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
    data_weight: float = 0.0  # weight of the error of the clips' own velocities; 0 learns from the teacher only
    seed: int = 0  # seed of batches; `TeacherBank` draws from it


class TeacherBank:
    """Batches of training clips with the frozen teacher's answers, a function of (seed, step).

    `features` are the teacher blocks whose states may be asked for; `keep` remembers answers (about 0.5 MB each for the
    miniature), for several students in turn.
    """

    def __init__(
        self, teacher: MobiVidTransformer3DModel, data: LatentDataset, batch: int, features: Sequence[int] = (),
        seed: int = 0, keep: bool = False,
    ) -> None:  # fmt: skip
        self.teacher, self.data, self.batch = teacher.eval(), data, batch
        self.features, self.seed, self.keep = tuple(sorted(set(features))), seed, keep
        self._kept: dict[int, Reference] = {}

    @torch.no_grad()
    def lesson(self, step: int) -> Reference:
        """The batch of one step."""
        if step in self._kept:
            return self._kept[step]
        generator = torch.Generator().manual_seed((self.seed * 7_368_787 + 1_000 + step) % 2**63)
        clean, text, mask = self.data.draw(self.batch, generator)
        captions = Condition(text, mask, self.data.null_text, self.data.null_mask)
        batch = CalibrationSet(*flow_batch(clean, captions, generator))
        lesson = Reference(batch, *forward(self.teacher, batch, self.features), self.features)
        if self.keep:
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
    matched = matched_features(plan) if settings.feature_weight else {}

    def loss(step: int, _: torch.Generator) -> dict[str, Tensor]:
        lesson = bank.lesson(step)
        states = dict(zip(lesson.feature_blocks, lesson.features, strict=True))
        return kd_loss(
            forward(student, lesson.calibration, tuple(matched)),
            (lesson.output, [states[b] for b in matched.values()]),
            lesson.calibration.velocity,
            settings.data_weight,
            settings.feature_weight,
        )

    twentieth = max(1, settings.steps // 20)
    schedule = TrainSettings(
        settings.steps, learning_rate=settings.learning_rate, warmup=twentieth, weight_decay=0.0, ema=0.0,
        log_every=twentieth, seed=settings.seed,
    )  # fmt: skip
    result = train(student, loss, schedule, title="recovery", progress=progress)
    return student.eval(), result


def matched_features(plan: PruningPlan) -> dict[int, int]:
    """Three evenly spaced student blocks, and the teacher block whose state each is trained to reach.

    A kept block also does the work of the removed blocks that follow it, so its target is the teacher's state before
    the next kept block. The last block is left to the output term.
    """
    inner = len(plan.keep_blocks) - 1
    picked = sorted({round((i + 1) * inner / 4) for i in range(3)} & set(range(inner)))
    return {i: plan.stands_for(i) for i in picked}


def feature_blocks_for(plans: Sequence[PruningPlan]) -> tuple[int, ...]:
    """Teacher blocks whose states any of the plans' students is matched with."""
    return tuple(sorted({b for plan in plans for b in matched_features(plan).values()}))

"""The adversarial stage after regression: the student against light heads on the frozen teacher's features.

Paper: adversarial step distillation on part of the teacher, real and synthetic data mixed (claims C30, C31). Losses,
heads and batches are the miniature's (`distill.adversarial`); the loop is `train.loop`, with the heads as the opponent,
so that the stage resumes at an optimiser step and runs on several processes. The heads are trained alone first; then
each step moves heads and student together, and the student keeps its regression loss. The settings were tried on the
miniature only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mobivid_core.distill.adversarial import Contest, RealPool
from mobivid_core.distill.discriminator import TeacherDiscriminator
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.flow.path import flow_error
from mobivid_core.ltx.training import Given, StudentSettings, TrajectoryFiles, draw_chords, run
from mobivid_core.train.distributed import SplitLoss, processes
from mobivid_core.train.loop import Player, TrainResult, TrainSettings, train
from mobivid_core.train.state import folder_for

#: Smallest separation of logits that counts; the margin of the hinge loss is 2.
_TOLD_APART = 0.2


def stage_settings(how: StudentSettings, steps: int, warmup: int | None) -> DistillSettings | None:
    """The adversarial stage after a regression with settings `how`; None for one of no steps.

    The student moves at a tenth of that rate, the adversarial loss has a tenth of regression's weight and flows through
    the student's last two steps. The heads are warmed up alone for `warmup` updates; None: a quarter of the steps, 2 to
    200.
    """
    if not steps:
        return None
    return DistillSettings(
        steps, batch=how.batch, rate=0.1 * how.learning_rate, adversarial_weight=0.1, gradient_steps=2,
        discriminator_warmup=min(200, max(2, steps // 4)) if warmup is None else warmup, seed=how.seed + 1,
    )  # fmt: skip


def compete(
    given: Given, files: TrajectoryFiles, how: StudentSettings, stage: DistillSettings, folder: Path
) -> TrainResult:
    """Train a regressed student against a discriminator, from real clips and the teacher's samples.

    `how` has type, micro-batches and alarms of the regression, `stage` is from `stage_settings`. `folder` gets a folder
    of this start's states. The log has `loss`, `regression`, `adversarial`, and of the heads `discriminator`,
    `real_logit`, `fake_logit`, `separation` (real minus fake) and `r1`.
    """
    device, student, teacher = processes().device, given.student, given.teacher
    student.to(device).requires_grad_(True).enable_gradient_checkpointing()
    teacher.enable_gradient_checkpointing()  # gradients of the student's samples pass through all of it
    heads = TeacherDiscriminator.seeded(teacher, stage.seed).to(device)
    contest = Contest(heads, RealPool(given.data, files), stage)
    place = folder_for(folder / "adversarial", *student.state_dict().values())

    def judged(*drawn: Tensor) -> dict[str, Tensor]:
        terms = contest.heads_terms(student, *drawn)
        return {**terms, "separation": terms["real_logit"] - terms["fake_logit"]}

    judge = Player(heads, SplitLoss(lambda _, g: contest.draw(g), judged), TrainSettings(
        stage.steps, learning_rate=stage.discriminator_rate, warmup=1, final_rate=1.0, weight_decay=0.0,
        betas=(0.0, 0.99), clip_norm=stage.clip_norm, ema=0.0, seed=stage.seed + 1, bf16=how.bf16,
        accumulate=how.accumulate,
    ))  # fmt: skip
    if stage.discriminator_warmup:
        _warm_up(judge, stage.discriminator_warmup, place / "warmup")

    def draw(_: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return *draw_chords(files, stage.batch, generator), *contest.draw(generator)

    def error(*drawn: Tensor) -> dict[str, Tensor]:
        regression, push = flow_error(student, *drawn[:5]), contest.student_term(student, *drawn[5:])
        loss = stage.anchor_weight * regression + stage.adversarial_weight * push
        return {"loss": loss, "regression": regression, "adversarial": push}

    settings = replace(how, steps=stage.steps, learning_rate=stage.rate, seed=stage.seed)
    return run(given, SplitLoss(draw, error), settings, place, "adversarial stage", opponent=judge)


def _warm_up(judge: Player, steps: int, folder: Path) -> None:
    """Train the heads alone, and say how far they tell real clips from the student's."""
    # Another seed: the first updates of the contest would otherwise meet the same batches again.
    settings = replace(judge.settings, steps=steps, seed=judge.settings.seed + 1, log_every=max(1, steps // 20))
    last = train(judge.model, judge.loss, settings, folder, title="discriminator").log[-1]
    unsure = "" if last["separation"] > _TOLD_APART else "; it hardly tells them apart: a longer --warmup may help"
    if processes().is_main_process:
        print(f"discriminator after {steps} updates alone: mean logit {last['real_logit']:.2f} of real clips, "
            f"{last['fake_logit']:.2f} of the student's, separation {last['separation']:.2f}{unsure}")  # fmt: skip

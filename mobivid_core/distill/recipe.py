"""The full distillation: teacher trajectories, regression, own states, then the adversarial stage.

Paper: from 40 guided to 4 unguided steps. The order is this project's choice: the regression student already makes
clips, so its own states and samples are useful inputs of the later stages. In the adversarial stage the discriminator
is warmed up alone, then the student is trained at a lower rate with the regression loss kept.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn

from mobivid_core.distill.adversarial import Contest, RealPool
from mobivid_core.distill.costs import DistillCosts
from mobivid_core.distill.discriminator import TeacherDiscriminator
from mobivid_core.distill.own_states import OwnRounds, collect_own_states, in_order, joined
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trainer import Distiller
from mobivid_core.distill.trajectory import (
    Trajectories,
    collect_trajectories,
    condition_of,
    round_steps,
    tensors_digest,
)
from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance
from mobivid_core.models.counts import dit_flops
from mobivid_core.profiles import Profile
from mobivid_core.train.speed import compile_blocks

if TYPE_CHECKING:
    from mobivid_core.data.latents import LatentDataset


@dataclass(frozen=True)
class Recipe:
    """Sizes of a distillation."""

    clips: int  # teacher trajectories
    teacher_steps: int  # steps of the guided teacher, a multiple of 4
    # Euler in eight steps is as good as in forty (all right .98 of 256 validation captions in both); UniPC in eight, at
    # this much guidance, is not (.93)
    solver: str
    guidance: float | Guidance
    regression: DistillSettings | None  # None leaves it out
    adversarial: DistillSettings | None  # None leaves it out
    synthetic_share: float = 0.5  # teacher samples in the discriminator's real batch, 0 to 1
    seed: int = 0  # of trajectories and training
    own: OwnRounds | None = None  # rounds on the student's own states, between the two; None leaves them out

    def __post_init__(self) -> None:
        if not (self.regression or self.own or self.adversarial):
            raise ParameterError("nothing to train: regression, own states and the adversarial stage are all left out")

    @classmethod
    def for_profile(
        cls, profile: Profile, *, steps: int | None = None, clips: int | None = None, batch: int | None = None,
        seed: int = 0,
    ) -> Recipe:  # fmt: skip
        """The recipe at a profile's budget: nine tenths of all updates (`steps`) regress, the rest is adversarial.

        An adversarial update costs about ten regression updates. On a processor the live distillation halves the batch
        and takes the teacher's trajectories in eight steps.
        """
        steps, slow = steps or profile.distill_steps, profile.device == "cpu"
        clips = clips or min(profile.train_clips, (4 if slow else 128) * profile.batch)
        batch = batch or max(profile.batch // (2 if slow else 1), 1)
        first = DistillSettings(max(9 * steps // 10, 1), batch=batch, snapshot_every=max(10, steps // 100), seed=seed)
        second = replace(
            first,
            steps=max(steps - first.steps, 1),
            adversarial_weight=0.1,
            loss="relativistic",
            rate=1e-4,
            discriminator_rate=3e-3,
            discriminator_warmup=2 if steps < 20 else min(200, max(10, steps // 10)),
            gradient_steps=2,
            seed=seed + 1,
        )
        teacher_steps = round_steps(min(profile.teacher_sampling_steps, 8 if slow else math.inf))
        return cls(clips, teacher_steps, "euler", profile.guidance, first, second, seed=seed)


@dataclass
class Distilled:
    """What a distillation left."""

    student: nn.Module  # the four-step student (averaged weights)
    log: pd.DataFrame  # one row an update, with a `stage` column
    costs: pd.DataFrame  # one row a stage: seconds, TFLOP (counted), samples


def costs_of(student: nn.Module, teacher: nn.Module, trajectories: Trajectories) -> DistillCosts:
    """FLOPs of both models on these latents and captions."""
    grid, tokens = tuple(trajectories.states.shape[3:]), trajectories.condition.text.shape[1]
    return DistillCosts(*(float(dit_flops(m.sizes, grid, tokens)["total"]) for m in (student, teacher)))


def teacher_trajectories(
    teacher: nn.Module, dataset: LatentDataset, recipe: Recipe, *, cache: Path | None = None, progress: bool = False
) -> Trajectories:
    """Guided trajectories for the captions of `recipe.clips` clips of the dataset (it is cycled if smaller)."""
    generator = torch.Generator().manual_seed(recipe.seed)
    condition = condition_of(dataset, torch.arange(recipe.clips) % len(dataset), generator)
    how = {"steps": recipe.teacher_steps, "guidance": recipe.guidance, "solver": recipe.solver, "seed": recipe.seed}
    shape = tuple(dataset.latents.shape[1:])
    return collect_trajectories(teacher, condition, shape, **how, cache=cache, progress=progress)


def run_stages(
    student: nn.Module, teacher: nn.Module, dataset: LatentDataset, trajectories: Trajectories,
    stages: tuple[DistillSettings, ...], *, synthetic_share: float = 0.5, folder: Path | None = None,
    progress: bool = False, compiled: bool = False,
) -> list[Distiller]:  # fmt: skip
    """Run stages one after the other, each from the averaged student of the one before; the start is copied.

    With a `folder`, an interrupted stage is resumed if it had the same start, trajectories and settings. `compiled`
    compiles the student's blocks, which takes a minute and pays from about a thousand updates.
    """
    done: list[Distiller] = []
    for number, settings in enumerate(stages):
        start = copy.deepcopy(done[-1].averaged if done else student).requires_grad_(True)
        start = compile_blocks(start) if compiled else start
        contest, where = None, None
        if settings.adversarial_weight > 0:
            contest = make_contest(teacher, dataset, trajectories, settings, synthetic_share)
        if folder:  # another training never resumes from this stage's state
            walked = [t for t in (trajectories.states, trajectories.ends) if t is not None]
            key = tensors_digest(repr((settings, synthetic_share)), (*start.state_dict().values(), *walked))
            where = folder / f"stage{number}-{key[:12]}"
        done.append(Distiller(start, trajectories, settings, contest=contest, folder=where))
        done[-1].run(progress=progress, title="adversarial" if contest else "regression")
    return done


def make_contest(
    teacher: nn.Module, dataset: LatentDataset, trajectories: Trajectories, settings: DistillSettings,
    synthetic_share: float = 0.5,
) -> Contest:  # fmt: skip
    """A fresh discriminator on the teacher's features, and its real batches, on the teacher's device."""
    device = next(teacher.parameters()).device
    heads = TeacherDiscriminator.seeded(teacher, settings.seed).to(device)
    return Contest(heads, RealPool(dataset, trajectories.to(device), synthetic_share), settings)


def distill(
    student: nn.Module,  # start, usually the pruned and recovered model; it is copied, not changed
    teacher: nn.Module,  # frozen; on the same device as the student
    dataset: LatentDataset,  # encoded captioned clips
    recipe: Recipe,
    *,
    folder: Path | None = None,  # keeps trajectories, states and logs, so that an interrupted call continues
    progress: bool = False,
    compiled: bool = False,  # compile the blocks of student and teacher
) -> Distilled:
    """Distil `student` from the guided `teacher`.

    Raises:
        TrainingError: Losses stayed non-finite.
    """
    teacher = teacher.eval().requires_grad_(False)
    walker = compile_blocks(copy.deepcopy(teacher)) if compiled else teacher
    costs, logs = [], []

    def gathered(stage: str, began: float, found: Trajectories, spent: float) -> None:
        """A row of the costs; no seconds where all was there already."""
        costs.append((stage, time.perf_counter() - began if found.forwards else math.nan, spent, len(found)))

    def train(stage: str, start: nn.Module, given: Trajectories, settings: DistillSettings) -> nn.Module:
        """One stage, with its row of the costs."""
        how = {"synthetic_share": recipe.synthetic_share, "folder": folder, "progress": progress, "compiled": compiled}
        (done,) = run_stages(start, teacher, dataset, given, (settings,), **how)
        costs.append((stage, done.log[-1]["seconds"], flops.training(settings), settings.steps * settings.batch))
        logs.append(pd.DataFrame(done.log).assign(stage=stage))
        return done.averaged

    began, caches = time.perf_counter(), {k: folder and folder / k for k in ("trajectories", "own_states")}
    trajectories = teacher_trajectories(walker, dataset, recipe, cache=caches["trajectories"], progress=progress)
    flops, latest, given = costs_of(student, teacher, trajectories), student, trajectories
    spent = flops.trajectories(len(trajectories), recipe.teacher_steps, recipe.guidance)
    gathered("teacher trajectories", began, trajectories, spent)
    if recipe.regression:
        latest = train("regression", latest, given, recipe.regression)
    for number in range(recipe.own.rounds if recipe.own else 0):
        began, name = time.perf_counter(), f"own states {number + 1}"
        first, clips = recipe.own.begin(number), recipe.own.clips
        walking = compile_blocks(copy.deepcopy(latest)) if compiled else latest
        how = {"first": first, "cache": caches["own_states"], "progress": progress}
        seen = collect_own_states(walking, walker, trajectories, clips, **how)
        gathered(f"{name}, gathered", began, seen, flops.own_states(clips, recipe.guidance))
        forced = trajectories.take(in_order(trajectories, first + clips, recipe.own.forced))
        given = joined([*([given] if number else []), seen, forced])
        latest = train(name, latest, given, recipe.own.settings_of(number))
    if recipe.adversarial:
        latest = train("adversarial", latest, given, recipe.adversarial)

    table = pd.DataFrame(costs, columns=["stage", "seconds", "TFLOP (counted)", "samples"])
    table["TFLOP (counted)"] /= 1e12
    return Distilled(latest, pd.concat(logs, ignore_index=True), table)

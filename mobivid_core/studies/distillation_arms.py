"""Ways to distil, at equal counted compute: regression, adversarial, both, consistency, distribution matching.

Paper: adversarial step distillation only. The other arms answer question R4.1: what does the adversarial term buy that
a cheaper or better known loss does not? Recorded trials share a `Bench`: models, trajectories, test captions.
"""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from mobivid_core import artifacts
from mobivid_core.data.latents import LatentDataset, latent_dataset
from mobivid_core.distill.alternatives import consistency_loss, consistency_sampler, make_matching
from mobivid_core.distill.costs import DistillCosts
from mobivid_core.distill.recipe import Recipe, costs_of, make_contest, teacher_trajectories
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.student import FOUR_STEPS
from mobivid_core.distill.trainer import Distiller
from mobivid_core.distill.trajectory import STUDENT_STEPS, Trajectories, tensors_digest
from mobivid_core.errors import ParameterError
from mobivid_core.measure.comparison import distance_ratio, mean_ratio
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.judge import Judge
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.text import CaptionSampler
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.train.precision import DIT, choose, whole_training
from mobivid_core.train.speed import compile_blocks

REGRESSION, ADVERSARIAL, BOTH = "regression only", "adversarial only", "regression, then both"
#: The control of the arms with two stages: the second one has their lower rate, but no other term.
SLOWER = "regression, then at the lower rate"
CONSISTENCY, MATCHING = "consistency", "regression, then distribution matching"
ARMS = (REGRESSION, SLOWER, ADVERSARIAL, BOTH, CONSISTENCY, MATCHING)
#: Weight of the distribution-matching term beside the regression anchor.
MATCHING_WEIGHT = 0.25
#: Rate of the network that follows the student's samples: a whole denoiser, not light heads.
MATCHING_NETWORK_RATE = 1e-4


@dataclass(frozen=True)
class Stage:
    """One training of an arm; `adversarial_weight` weighs `term` ("adversarial" or "matching").

    The anchor is the consistency loss where `consistent`, else regression.
    """

    settings: DistillSettings
    term: str = "adversarial"
    consistent: bool = False

    def flops(self, costs: DistillCosts) -> float:
        """Counted FLOPs of this training."""
        s = self.settings
        if self.consistent:
            return s.steps * s.batch * 4.0 * costs.student
        if self.term != "matching":
            return costs.training(s)
        # an update of the network that follows the student's samples (of the teacher's size), and one of the student:
        # anchor, unrolled student, guided teacher, then that network
        network = s.batch * (STUDENT_STEPS * costs.student + 3.0 * costs.teacher)
        anchor = 3.0 * costs.student if s.anchor_weight > 0 else 0.0
        unrolled = (STUDENT_STEPS + 2 * min(s.gradient_steps, STUDENT_STEPS)) * costs.student
        update = s.batch * (anchor + unrolled + 3.0 * costs.teacher) + network
        return s.steps * update + s.discriminator_warmup * network


@dataclass(frozen=True)
class ArmResult:
    """A trained arm."""

    student: nn.Module  # averaged weights
    sample: CaptionSampler  # the sampler that fits its loss
    updates: int  # of the student
    seconds: float
    flops: float  # counted
    recoveries: int  # returns to a good state after non-finite values


def arm_stages(
    arm: str, budget: float, costs: DistillCosts, regression: DistillSettings, adversarial: DistillSettings
) -> tuple[Stage, ...]:
    """The stages of an arm whose counted FLOPs fill `budget`; arms of two stages spend half on each.

    The steps of the settings are replaced. An unknown arm, or a budget below one update, is a `ParameterError`.
    """
    alone = replace(adversarial, anchor_weight=0.0, adversarial_weight=1.0)
    matched = replace(adversarial, adversarial_weight=MATCHING_WEIGHT, discriminator_rate=MATCHING_NETWORK_RATE)
    plans = {
        REGRESSION: (Stage(regression),),
        SLOWER: (Stage(regression), Stage(replace(adversarial, adversarial_weight=0.0))),
        ADVERSARIAL: (Stage(alone),),
        BOTH: (Stage(regression), Stage(adversarial)),
        CONSISTENCY: (Stage(regression, consistent=True),),
        MATCHING: (Stage(regression), Stage(matched, "matching")),
    }
    if arm not in plans:
        raise ParameterError(f"unknown arm {arm!r}; the arms are {', '.join(ARMS)}")
    return tuple(filled(stage, budget / len(plans[arm]), costs) for stage in plans[arm])


def filled(stage: Stage, budget: float, costs: DistillCosts, shortest_warmup: int = 1) -> Stage:
    """The stage with as many steps as `budget` FLOPs pay.

    Its warm-up takes a third of as many updates at most, but `shortest_warmup` at the least.
    """

    def sized(steps: int) -> Stage:
        warmup = min(stage.settings.discriminator_warmup, max(steps // 3, shortest_warmup))
        return replace(stage, settings=replace(stage.settings, steps=steps, discriminator_warmup=warmup))

    one, two = sized(1).flops(costs), sized(2).flops(costs)
    if one > budget:
        raise ParameterError(
            f"a budget of {budget / 1e12:.3g} TFLOP pays no update of this arm, the first costs {one / 1e12:.3g}: "
            "give more"
        )
    steps = max(int((budget - one) / (two - one)) + 1, 1)
    while steps > 1 and sized(steps).flops(costs) > budget:
        steps -= 1
    return sized(steps)


def run_arm(
    start: nn.Module,
    teacher: nn.Module,
    dataset: LatentDataset,
    trajectories: Trajectories,
    stages: Sequence[Stage],
    costs: DistillCosts,
    *,
    compiled: bool = False,
) -> ArmResult:
    """Train the stages one after the other, each from the averaged student of the one before; `start` is copied.

    `compiled` compiles the student's blocks.
    """
    student, updates, seconds, recoveries = start, 0, 0.0, 0
    for stage in stages:
        s, contest = stage.settings, None
        if s.adversarial_weight > 0 and stage.term == "matching":
            contest = make_matching(teacher, trajectories, s)
        elif s.adversarial_weight > 0:
            contest = make_contest(teacher, dataset, trajectories, s)
        anchor, copied = consistency_loss if stage.consistent else None, copy.deepcopy(student).requires_grad_(True)
        if compiled:
            compile_blocks(copied)
        distiller = Distiller(copied, trajectories, s, contest=contest, anchor=anchor)
        student = distiller.run()
        updates, seconds = updates + distiller.step, seconds + distiller.log[-1]["seconds"]
        recoveries += distiller.recoveries
    own = consistency_sampler if stages[-1].consistent else FOUR_STEPS.on
    return ArmResult(student, own(student), updates, seconds, sum(x.flops(costs) for x in stages), recoveries)


@dataclass(frozen=True)
class Trial:
    """One arm at one budget with one seed."""

    arm: str
    tflop: float
    seed: int


class Bench:
    """Models, trajectories of the guided teacher (eight Euler steps) and captions that all trials share.

    `options` are of `records.run_study`. Each trial starts from `start`: a stage ("student", "pruned"), or a folder
    with a transformer. Training computes in bfloat16 where that is faster on this machine; records say so. `compiled`
    compiles the models' blocks, which pays in trainings of some minutes.
    """

    def __init__(self, options: Namespace, start: str = "", *, compiled: bool = False) -> None:
        self.profile = profile = get_profile(options.profile)
        start = start or options.start
        self.folder, self.clips, self.split = runs_dir(profile.name) / "distill", options.clips, "test"
        self.bf16 = choose(DIT).bf16
        place = artifacts.find(start, profile.name).path if start in artifacts.STAGES else Path(start)
        self.start = artifacts.load_model(MobiVidTransformer3DModel, place)
        self.teacher = self._model(MobiVidTransformer3DModel, "teacher").requires_grad_(False)
        self.vae = self._model(MobiVidVAE, "vae")
        self.data = self.latents("train", options.trajectories)
        recipe = Recipe.for_profile(profile, clips=options.trajectories)
        self.recipe = replace(recipe, teacher_steps=8)
        self.trajectories = self.walked(self.data)
        self.costs = costs_of(self.start, self.teacher, self.trajectories)
        self.compiled = compiled
        if compiled:
            compile_blocks(self.teacher)

    def _model(self, kind: type[nn.Module], stage: str) -> nn.Module:
        return artifacts.load_model(kind, artifacts.find(stage, self.profile.name).path)

    def latents(self, split: str, count: int, start: int = 0) -> LatentDataset:
        """Captioned clips `start` to `start + count` of a split."""
        p = self.profile
        how = {"start": start, "frames": p.frames, "size": p.size, "cache": runs_dir(p.name) / "latents"}
        return latent_dataset(self.vae, split=split, count=count, **how)

    def walked(self, data: LatentDataset) -> Trajectories:
        """The guided teacher's trajectories for the captions of a data set, one a clip."""
        recipe = replace(self.recipe, clips=len(data))
        return teacher_trajectories(self.teacher, data, recipe, cache=self.folder / "trajectories", progress=True)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Of the captions of `split`."""
        judge = self._model(Judge, "judge")
        return Evaluator.prepare(self.vae, judge, self.profile, n=self.clips, split=self.split, progress=False)

    @cached_property
    def before(self) -> Evaluation:
        """Scores of the start."""
        return self.score(FOUR_STEPS.on(self.start))

    def on(self, split: str) -> Bench:
        """The same, judged on the captions of another split."""
        other = copy.copy(self)
        other.split = split
        for name in ("evaluator", "before"):
            other.__dict__.pop(name, None)
        return other

    def score(self, sample: CaptionSampler) -> Evaluation:
        """Evaluation of a sampler on the first captions, always with the same noises."""
        return self.evaluator.evaluate_sampler(sample, n=self.clips, keep=0, progress=False)

    def key(self, *parts: object) -> str:
        """Short hash of what all trials share and of `parts`, whose `repr` says what one trial depends on besides."""
        shared = self.recipe.teacher_steps, self.recipe.guidance, len(self.trajectories), self.clips, self.bf16
        weights = (*self.start.state_dict().values(), *self.teacher.state_dict().values())
        return tensors_digest(repr((shared, parts)), weights)

    def stages(self, trial: Trial) -> tuple[Stage, ...]:
        """The trainings of a trial."""
        first, second = (
            replace(s, seed=trial.seed + i) for i, s in enumerate((self.recipe.regression, self.recipe.adversarial))
        )
        return arm_stages(trial.arm, 1e12 * trial.tflop, self.costs, first, second)

    def run_stages(self, stages: Sequence[Stage]) -> ArmResult:
        """Train from the start, one stage after the other."""
        with whole_training(self.start.device, self.bf16):
            shared = self.teacher, self.data, self.trajectories, stages, self.costs
            return run_arm(self.start, *shared, compiled=self.compiled)

    def run(self, trial: Trial) -> dict:
        """Train and score one trial."""
        return {"trial": trial.arm, "seed": trial.seed, **self.row(self.run_stages(self.stages(trial)), trial.seed)}

    def row(self, done: ArmResult, seed: int) -> dict:
        """Cells of a trained arm's row: what it cost; its scores, distance and accuracy over those of the start."""
        after, reference = self.score(done.sample), self.evaluator.reference
        over = distance_ratio(after.measures, self.before.measures, reference, seed=seed)
        right = mean_ratio(after.measures, self.before.measures, after.labels, reference, "all_together")
        return {
            "TFLOP (counted)": done.flops / 1e12,
            "updates": done.updates,
            "seconds": done.seconds,
            "all together": float(after.scores["all_together"]),
            "motion": float(after.scores["action"]),
            "dynamic degree": float(after.scores["dynamic_degree"]),
            "sharpness": float(after.scores["sharpness"]),
            "Frechet": float(after.scores[reference.space.reconstruction]),
            **dict(zip(("Frechet / start", "low", "high"), over, strict=True)),
            "accuracy / start": right[0],
            "distances in": reference.space.title,
            "recoveries": done.recoveries,
        }

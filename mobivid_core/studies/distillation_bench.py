"""What recorded distillation trials share: models, trajectories, test captions, one initial student."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mobivid_core import artifacts
from mobivid_core.data.latents import latent_dataset
from mobivid_core.distill.recipe import Recipe, costs_of, teacher_trajectories
from mobivid_core.distill.trajectory import STUDENT_STEPS, tensors_digest
from mobivid_core.measure.comparison import distance_ratio, mean_ratio
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.judge import Judge
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.text import CaptionSampler
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile
from mobivid_core.studies.distillation_arms import ArmResult, arm_stages, run_arm

#: Four unguided steps: how students sample.
FOUR = Sampler("euler", STUDENT_STEPS)


@dataclass(frozen=True)
class Trial:
    """One arm at one budget with one seed."""

    arm: str
    tflop: float
    seed: int


class Bench:
    """Models, trajectories of the guided teacher (UniPC in eight steps) and test captions that all trials share.

    Each trial starts from `start`: a stage ("student", "pruned"), or a folder with a transformer.
    """

    def __init__(self, profile: Profile, start: str, *, trajectories: int, clips: int) -> None:
        found = {stage: artifacts.find(stage, profile.name).path for stage in ("vae", "judge", "teacher")}
        place = artifacts.find(start, profile.name).path if start in artifacts.STAGES else Path(start)
        self.start = artifacts.load_model(MobiVidTransformer3DModel, place)
        self.teacher = artifacts.load_model(MobiVidTransformer3DModel, found["teacher"]).requires_grad_(False)
        vae = artifacts.load_model(MobiVidVAE, found["vae"])
        run = runs_dir(profile.name)
        sizes = {"frames": profile.frames, "size": profile.size}
        self.data = latent_dataset(vae, split="train", count=trajectories, cache=run / "latents", **sizes)
        recipe = Recipe.for_profile(profile, clips=trajectories)
        self.recipe = replace(recipe, teacher_steps=8, solver="unipc")
        self.trajectories = teacher_trajectories(
            self.teacher, self.data, self.recipe, cache=run / "distill" / "trajectories", progress=True
        )
        self.costs = costs_of(self.start, self.teacher, self.trajectories)
        judge = artifacts.load_model(Judge, found["judge"])
        self.clips, self.evaluator = clips, Evaluator.prepare(vae, judge, profile, n=clips, progress=False)
        self.before = self.score(FOUR.on(self.start))

    def score(self, sample: CaptionSampler) -> Evaluation:
        """Evaluation of a sampler on the first test captions, always with the same noises."""
        return self.evaluator.evaluate_sampler(sample, n=self.clips, keep=0, progress=False)

    def key(self, trial: object) -> str:
        """Short hash of everything that a trial depends on; the trial itself must have a `repr` that tells it apart."""
        weights = (*self.start.state_dict().values(), *self.teacher.state_dict().values())
        return tensors_digest(repr((trial, self.recipe, self.clips)), weights)

    def train(self, trial: Trial) -> ArmResult:
        """Train one trial."""
        first, second = (
            replace(s, seed=trial.seed + i) for i, s in enumerate((self.recipe.regression, self.recipe.adversarial))
        )
        stages = arm_stages(trial.arm, 1e12 * trial.tflop, self.costs, first, second)
        return run_arm(self.start, self.teacher, self.data, self.trajectories, stages, self.costs)

    def judged(self, sample: CaptionSampler, seed: int) -> dict:
        """Cells of a trial's row: scores of its sampler, distance and accuracy over those of the start."""
        after, reference = self.score(sample), self.evaluator.reference
        over = distance_ratio(after.measures, self.before.measures, reference, seed=seed)
        right = mean_ratio(after.measures, self.before.measures, after.labels, reference, "all_together")
        return {
            "all together": float(after.scores["all_together"]),
            "motion": float(after.scores["action"]),
            "dynamic degree": float(after.scores["dynamic_degree"]),
            "Frechet": float(after.scores[reference.space.real]),
            **dict(zip(("Frechet / start", "low", "high"), over, strict=True)),
            "accuracy / start": right[0],
            "distances in": reference.space.title,
        }

    def run(self, trial: Trial) -> dict:
        """Train and score one trial."""
        done = self.train(trial)
        counted = {"TFLOP (counted)": done.flops / 1e12, "updates": done.updates, "seconds": done.seconds}
        judged = self.judged(done.sample, trial.seed)
        return {"trial": trial.arm, "seed": trial.seed, **counted, **judged, "recoveries": done.recoveries}

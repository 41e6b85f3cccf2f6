"""The arms of the comparison with pruning libraries, and what all of them share.

Paper: the comparison that reviewers missed (R1.2). `mobivid_core.studies.library_benchmark` runs it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mobivid_core import artifacts
from mobivid_core.data.latents import LatentDataset, latent_dataset
from mobivid_core.measure.generation import Evaluator
from mobivid_core.measure.judge import Judge
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile
from mobivid_core.prune.arithmetic import blocks_nearest
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets, plan_for_budget, plan_for_targets
from mobivid_core.prune.recovery import RecoverySettings, TeacherBank, recover
from mobivid_core.prune.refit import refit
from mobivid_core.prune.search import eliminate_blocks, rescore, without_blocks
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.calibration import CalibrationSet, calibration_from
from mobivid_core.sensitivity.compensated import compensated_scores
from mobivid_core.sensitivity.damage import gauss_newton_sensitivity
from mobivid_core.sensitivity.estimators import block_influence
from mobivid_core.sensitivity.kd import Reference, output_errors, reference
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.studies.library_plans import LibraryPlan, fastnas_plan, torch_pruning_plan

#: One backward pass a sample: what the Hessian criterion gets.
HESSIAN_SAMPLES = 8
#: Calibration samples, in multiples of the profile's clips, and the share of them (one in so many) that scores need.
CALIBRATION, SCORED_ON = 8, 16
PROBES = 4
#: Rates of the recovery that every arm tries on seed 0; the best one on clips of their own is its rate.
RATES = (2e-3, 1e-3, 5e-4, 2e-4)
#: Rows made by other settings than these are not mixed with new ones.
RECIPE = hashlib.sha256(repr((RATES, HESSIAN_SAMPLES, CALIBRATION, PROBES)).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Setting:
    """What every arm shares.

    Attributes:
        teacher: The model to be pruned.
        train: Clips of calibration and recovery.
        calibration: Samples of scores and refit.
        probe: Teacher answers that choices are made on.
        choice: Teacher answers that rates are chosen on.
        held_out: Teacher answers that arms are judged on.
        evaluator: Test captions and the judge.
        targets: The paper's counts.
        steps: Recovery steps.
        batch: Clips of one.
    """

    teacher: MobiVidTransformer3DModel
    train: LatentDataset
    calibration: CalibrationSet
    probe: Reference
    choice: Reference
    held_out: Reference
    evaluator: Evaluator
    targets: Targets
    steps: int
    batch: int

    @classmethod
    def load(cls, profile: Profile, steps: int, clips: int) -> Setting:
        """From the profile's artefacts."""
        vae = artifacts.load_model(MobiVidVAE, artifacts.find("vae", profile.name).path)
        judge = artifacts.load_model(Judge, artifacts.find("judge", profile.name).path)
        teacher = artifacts.load_model(MobiVidTransformer3DModel, artifacts.find("teacher", profile.name).path)
        teacher.requires_grad_(False)
        sizes = {"frames": profile.frames, "size": profile.size, "cache": runs_dir(profile.name) / "latents"}
        train = latent_dataset(vae, split="train", count=min(profile.train_clips, 1024), **sizes)
        held = latent_dataset(vae, split="val", count=profile.calibration_clips, **sizes)
        calibration = calibration_from(train, samples=CALIBRATION * profile.calibration_clips, seed=0)
        probe = reference(teacher, calibration.first(max(4, profile.calibration_clips // 4)))
        held_out = reference(teacher, calibration_from(held, seed=1))
        others = latent_dataset(vae, split="val", count=2 * profile.calibration_clips, **sizes)
        half = torch.arange(profile.calibration_clips, 2 * profile.calibration_clips)
        unseen = replace(others, latents=others.latents[half], caption_of=others.caption_of[half])
        choice = reference(teacher, calibration_from(unseen, seed=2))
        evaluator = Evaluator.prepare(vae, judge, profile, n=clips, progress=False)
        batch = max(4, profile.batch // 2)
        return cls(
            teacher, train, calibration, probe, choice, held_out, evaluator, Targets.of(profile.mobile), steps, batch
        )

    def bank(self, seed: int) -> TeacherBank:
        """Recovery batches with the teacher's answers and the states of all its blocks, kept for every arm."""
        blocks = range(len(self.teacher.blocks))
        return TeacherBank(self.teacher, self.train, self.batch, blocks, seed=seed, keep=True)


def choices(s: Setting, budget: float, paper: bool) -> dict[str, Callable[[], LibraryPlan]]:
    """Arm -> its choice, made when it is called (BudgetError where the arm cannot meet the budget)."""
    sizes, calibration = s.teacher.sizes, s.calibration
    few = calibration.first(max(4, len(calibration) // SCORED_ON))

    def timed(make: Callable[[], PruningPlan]) -> Callable[[], LibraryPlan]:
        def choose() -> LibraryPlan:
            began = time.perf_counter()
            plan = make()
            return LibraryPlan(plan, time.perf_counter() - began, "")

        return choose

    def scored() -> Scores:
        return gauss_newton_sensitivity(s.teacher, reference(s.teacher, few), PROBES, seed=0)[0]

    def influence() -> PruningPlan:
        order = block_influence(s.teacher, s.probe.calibration).argsort()[::-1]
        return without_blocks(sizes, tuple(sorted(int(b) for b in order[: blocks_nearest(sizes, budget)])))

    def whole_blocks() -> PruningPlan:
        kept, _ = eliminate_blocks(s.teacher, s.probe, blocks_nearest(sizes, budget), progress=False)
        return without_blocks(sizes, kept)

    def paper_cut() -> PruningPlan:
        kept, _ = eliminate_blocks(s.teacher, s.probe, s.targets.blocks, progress=False)
        return plan_for_targets(rescore(s.teacher, s.probe, kept), sizes, s.targets, keep_blocks=kept)

    libraries = {
        f"torch-pruning {name}": (
            lambda n=name: torch_pruning_plan(
                s.teacher, calibration, budget, n, s.probe, HESSIAN_SAMPLES if n == "Hessian" else None
            )
        )
        for name in ("magnitude", "Taylor", "Hessian")
    }

    def taken_over() -> PruningPlan:
        return plan_for_budget(compensated_scores(s.teacher, reference(s.teacher, few), seed=0)[0], sizes, budget)

    ours = {
        "ours: any level, one queue, refit": timed(lambda: plan_for_budget(scored(), sizes, budget)),
        "ours: scores with take-over, one queue, refit": timed(taken_over),
    }
    return {
        **libraries,
        "modelopt FastNAS": lambda: fastnas_plan(s.teacher, s.probe, budget),
        "block influence": timed(influence),
        "block-only by KD": timed(whole_blocks),
        "head-only by KD": timed(lambda: plan_for_budget(scored(), sizes, budget, ("heads",))),
        "FFN-only by KD": timed(lambda: plan_for_budget(scored(), sizes, budget, ("ffn",))),
        **ours,
        **({"ours: the paper's cut, refit": timed(paper_cut)} if paper else {}),
    }


def recovered(
    s: Setting, chosen: LibraryPlan, start: MobiVidTransformer3DModel, bank: TeacherBank, rate: float
) -> MobiVidTransformer3DModel:
    """The short recovery at one rate."""
    settings = RecoverySettings(s.steps, s.batch, learning_rate=rate, seed=bank.seed)
    return recover(start, chosen.plan, bank, settings, progress=False)[0]


def measured(
    s: Setting, chosen: LibraryPlan, start: MobiVidTransformer3DModel, student: MobiVidTransformer3DModel, seed: int
) -> dict:
    """What an arm's row says."""
    score = s.evaluator.evaluate(student, steps=8, solver="unipc", seed=seed, keep=0, progress=False).scores
    return {
        "parameters": chosen.plan.parameters,
        "planning seconds": chosen.seconds,
        "library": chosen.library,
        "KD before recovery": float(output_errors(start, s.held_out).mean()),
        "KD recovered": float(output_errors(student, s.held_out).mean()),
        "MiniVBench total": float(score["total"]),
    }


def prepared(s: Setting, name: str, chosen: LibraryPlan) -> tuple[LibraryPlan, MobiVidTransformer3DModel]:
    """The cut model, refitted where the arm is ours (its seconds count as planning)."""
    student, began = prune(s.teacher, chosen.plan).eval(), time.perf_counter()
    if name.startswith("ours"):
        student, _ = refit(student, s.teacher, chosen.plan, s.calibration, progress=False)
        chosen = replace(chosen, seconds=chosen.seconds + time.perf_counter() - began)
    return chosen, student

"""The arms of the comparison with pruning libraries, and their shared settings.

Paper: the comparison that reviewers missed (R1.2). `mobivid_core.studies.library_benchmark` runs it. A plan and a
repair are two claims: every arm, a library's or ours, is measured with and without the least-squares refit.
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
HESSIAN_SAMPLES = 64
#: The Taylor criterion gets the better of all calibration samples and one in so many.
TAYLOR_SHARES = (1, 8)
#: First index of the clips (split val) and captions (split test) of the final judgement. Nothing else draws from there.
FRESH_START = 7_000_000
#: Calibration samples, in multiples of the profile's clips, and the share of them (one in so many) that scores need.
CALIBRATION, SCORED_ON = 8, 16
PROBES = 4
#: Rates of the recovery that every arm tries on seed 0; the best one on clips of their own is its rate.
RATES = (2e-3, 1e-3, 5e-4, 2e-4)
#: Rows made by other settings than these are not mixed with new ones.
_RECIPE = (RATES, HESSIAN_SAMPLES, TAYLOR_SHARES, FRESH_START, CALIBRATION, PROBES)
RECIPE = hashlib.sha256(repr(_RECIPE).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Setting:
    """What every arm shares.

    Attributes:
        teacher: The model to be pruned.
        train: Clips of calibration and recovery.
        calibration: Samples of scores and refit.
        probe: Teacher answers that choices are made on.
        choice: Teacher answers that rates are chosen on.
        held_out: Teacher answers that earlier records, and the choice of arms after them, were judged on.
        fresh: Teacher answers on clips that no choice has seen: the final judgement.
        evaluator: Test captions that no choice has seen, and the judge.
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
    fresh: Reference
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
        new = latent_dataset(vae, split="val", count=profile.calibration_clips, start=FRESH_START, **sizes)
        fresh = reference(teacher, calibration_from(new, seed=3))
        evaluator = Evaluator.prepare(vae, judge, profile, n=clips, start=FRESH_START, progress=False)
        batch = max(4, profile.batch // 2)
        answers = probe, choice, held_out, fresh
        return cls(teacher, train, calibration, *answers, evaluator, Targets.of(profile.mobile), steps, batch)

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

    sizes_tried = {
        "magnitude": (None,),
        "Taylor": tuple(max(1, len(calibration) // share) for share in TAYLOR_SHARES),
        "Hessian": (min(HESSIAN_SAMPLES, len(calibration)),),
    }
    libraries = {
        f"torch-pruning {name}": (
            lambda n=name, tried=tried: torch_pruning_plan(s.teacher, calibration, budget, n, s.probe, tried)
        )
        for name, tried in sizes_tried.items()
    }

    def taken_over() -> PruningPlan:
        return plan_for_budget(compensated_scores(s.teacher, reference(s.teacher, few), seed=0)[0], sizes, budget)

    ours = {
        "ours: any level, one queue": timed(lambda: plan_for_budget(scored(), sizes, budget)),
        "ours: scores with take-over, one queue": timed(taken_over),
    }
    return {
        **libraries,
        "modelopt FastNAS": lambda: fastnas_plan(s.teacher, s.probe, budget),
        "block influence": timed(influence),
        "block-only by KD": timed(whole_blocks),
        "head-only by KD": timed(lambda: plan_for_budget(scored(), sizes, budget, ("heads",))),
        "FFN-only by KD": timed(lambda: plan_for_budget(scored(), sizes, budget, ("ffn",))),
        **ours,
        **({"ours: the paper's cut": timed(paper_cut)} if paper else {}),
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
    """What an arm's row says, on clips and captions that no choice has seen (and once on those of earlier records)."""
    score = s.evaluator.evaluate(student, steps=8, solver="unipc", seed=seed, keep=0, progress=False).scores
    errors = output_errors(student, s.fresh)
    return {
        "parameters": chosen.plan.parameters,
        "planning seconds": chosen.seconds,
        "library": chosen.library,
        "KD before recovery": float(output_errors(start, s.fresh).mean()),
        "KD recovered": float(errors.mean()),
        "MiniVBench total": float(score["total"]),
        "KD recovered, earlier clips": float(output_errors(student, s.held_out).mean()),
        "errors": [round(float(e), 6) for e in errors],
    }


def prepared(s: Setting, chosen: LibraryPlan, repair: bool) -> tuple[LibraryPlan, MobiVidTransformer3DModel]:
    """The cut model, refitted or not (the refit's seconds count as planning)."""
    student, began = prune(s.teacher, chosen.plan).eval(), time.perf_counter()
    if repair:
        student, _ = refit(student, s.teacher, chosen.plan, s.calibration, progress=False)
        chosen = replace(chosen, seconds=chosen.seconds + time.perf_counter() - began)
    return chosen, student

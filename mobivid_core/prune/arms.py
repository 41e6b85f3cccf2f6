"""Pruning recipes (arms) at equal size, on the same calibration clips, recovery batches and held-out clips.

For reviewers: each level alone at a budget that it can reach, all three at the paper's, with units chosen by KD, by
magnitude, evenly or at random.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from mobivid_core.measure import intervals
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.recovery import RecoverySettings, TeacherBank, feature_blocks_for, recover
from mobivid_core.prune.refit import refit
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import Reference, output_errors

if TYPE_CHECKING:
    from mobivid_core.data.latents import LatentDataset


class Arm(NamedTuple):
    """One recipe: a plan, and whether the least-squares refit comes before the recovery."""

    name: str
    plan: PruningPlan
    refit: bool = True


class ArmResult(NamedTuple):
    """What one arm reached."""

    arm: Arm
    pruned: np.ndarray  # (N,) held-out KD output error of each clip right after pruning
    refitted: np.ndarray  # the same after the refit (equal to `pruned` without one)
    recovered: np.ndarray  # the same after the short recovery
    seconds: float  # wall time of refit and recovery
    model: MobiVidTransformer3DModel


def run_arms(
    arms: Sequence[Arm],
    teacher: MobiVidTransformer3DModel,  # the source of every plan
    calibration: CalibrationSet,  # inputs of the refit
    data: LatentDataset,  # training clips
    held_out: Reference,  # teacher answers on clips that no arm has seen
    settings: RecoverySettings,  # the short recovery
    progress: bool = True,  # show one bar over the arms
) -> list[ArmResult]:
    """Prune, refit and recover every arm, measuring after each step.

    All arms see the same recovery batches, whose teacher answers are computed once.
    """
    blocks = feature_blocks_for([arm.plan for arm in arms])
    bank = TeacherBank(teacher, data, settings.batch, blocks, settings.seed, keep=True)
    results = []
    for arm in tqdm(arms, desc="arms", disable=not progress, ascii=True, mininterval=2.0):
        began = time.perf_counter()
        student = prune(teacher, arm.plan).eval()
        pruned = refitted = output_errors(student, held_out).numpy()
        if arm.refit:
            student, _ = refit(student, teacher, arm.plan, calibration, progress=False)
            refitted = output_errors(student, held_out).numpy()
        student, _ = recover(student, arm.plan, bank, settings, progress=False)
        recovered = output_errors(student, held_out).numpy()
        results.append(ArmResult(arm, pruned, refitted, recovered, time.perf_counter() - began, student))
    return results


def arms_table(results: Sequence[ArmResult], teacher_parameters: int, seed: int = 0) -> pd.DataFrame:
    """One row an arm: size, KD loss at each stage, and its 95 % bootstrap interval over held-out clips at the end."""
    rows = []
    for result in results:
        found = intervals.cells(intervals.mean(result.recovered, seed=seed))
        rows.append(
            {
                "arm": result.arm.name,
                "parameters": result.arm.plan.parameters,
                "share": result.arm.plan.parameters / teacher_parameters,
                "KD pruned": float(result.pruned.mean()),
                "KD refitted": float(result.refitted.mean()) if result.arm.refit else float("nan"),
                "KD recovered": found.pop("value"),
                **found,
                "seconds": result.seconds,
            }
        )
    return pd.DataFrame(rows)


def random_units(plan: PruningPlan, seed: int = 0) -> PruningPlan:
    """The same blocks and widths with randomly drawn heads and neurons: the baseline of the ranking."""
    rng, drawn = np.random.default_rng(seed), {}
    for kind, widths in plan.source.units.items():
        counts = zip(plan.keep_blocks, map(len, getattr(plan, kind)), strict=True)
        drawn[kind] = tuple(tuple(sorted(rng.choice(widths[b], n, replace=False).tolist())) for b, n in counts)
    return replace(plan, **drawn, notes={"method": "random units", "seed": seed})


def plan_and_repair(results: Sequence[ArmResult], names: Sequence[str], ours: str, seed: int = 0) -> pd.DataFrame:
    """Plans with and without the refit: each row's KD loss after recovery over that of `ours` with the same repair.

    `names` are the plans, as the arms are called without "no refit: "; `results` has both arms of each. Intervals are
    paired over held-out clips.
    """
    recovered = {result.arm.name: result.recovered for result in results}
    rows = []
    for repair, prefix in (("no", "no refit: "), ("yes", "")):
        for name in names:
            errors = recovered[prefix + name]
            over = intervals.ratio(errors, recovered[prefix + ours], seed=seed)
            row = {"plan": name, "refit": repair, "KD recovered": float(errors.mean())}
            rows.append(row | intervals.cells(over))
    return pd.DataFrame(rows).rename(columns={"value": "over ours"})

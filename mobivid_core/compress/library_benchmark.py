"""Pruning against the libraries: `python -m mobivid_core.compress.library_benchmark --profile laptop`.

Paper: the comparison that reviewers missed (R1.2). Every arm starts from the same teacher, has the same parameter
budget, the same recovery steps on the same batches, and is measured on the same held-out clips and captions; only the
choice of what stays differs (and the least-squares refit, which belongs to ours). Plans are made once, on seed 0's
calibration clips; seeds change the recovery batches and the sampling noise. Interrupted, it goes on where it was.

It needs two libraries that the notebooks do not: `pip install --no-deps torch-pruning==1.6.1 nvidia-modelopt==0.47.0
torchprofile==0.0.4`, then `pip install omegaconf pulp`. The record that it writes, `data/benchmarks/`, is what notebook
04 shows.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from mobivid_core import artifacts
from mobivid_core.compress.arithmetic import blocks_nearest
from mobivid_core.compress.calibration import CalibrationSet, calibration_from
from mobivid_core.compress.compensated import compensated_scores
from mobivid_core.compress.costs import parameter_cost
from mobivid_core.compress.estimators import block_influence
from mobivid_core.compress.kd import Reference, output_errors, reference
from mobivid_core.compress.library_plans import LibraryPlan, fastnas_plan, torch_pruning_plan
from mobivid_core.compress.library_record import RECORD, record_folder, teacher_hash
from mobivid_core.compress.plan import PruningPlan
from mobivid_core.compress.planner import Targets, plan_for_budget, plan_for_targets
from mobivid_core.compress.recovery import RecoverySettings, TeacherBank, recover
from mobivid_core.compress.refit import refit
from mobivid_core.compress.search import eliminate_blocks, rescore, without_blocks
from mobivid_core.compress.sensitivity import gauss_newton_sensitivity
from mobivid_core.compress.surgery import prune
from mobivid_core.errors import BudgetError
from mobivid_core.evaluate.generation import Evaluator
from mobivid_core.evaluate.judge import Judge
from mobivid_core.files import write_bytes
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import PROFILES, Profile, get_profile
from mobivid_core.report.records import write_record
from mobivid_core.training.latents import LatentDataset, latent_dataset

#: One backward pass a sample: what the Hessian criterion gets.
HESSIAN_SAMPLES = 8
#: Calibration samples, in multiples of the profile's clips; half as many samples as clips are enough for scores.
CALIBRATION = 8
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

    def timed(make: Callable[[], PruningPlan]) -> Callable[[], LibraryPlan]:
        def choose() -> LibraryPlan:
            began = time.perf_counter()
            plan = make()
            return LibraryPlan(plan, time.perf_counter() - began, "")

        return choose

    def scored():
        few = calibration.first(max(4, len(calibration) // (2 * CALIBRATION)))
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
        few = reference(s.teacher, calibration.first(max(4, len(calibration) // (2 * CALIBRATION))))
        return plan_for_budget(compensated_scores(s.teacher, few, seed=0)[0], sizes, budget)

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


def run(profile: Profile, steps: int, seeds: int, clips: int) -> pd.DataFrame:
    """All arms at both budgets; finished rows are kept in the run's folder."""
    s = Setting.load(profile, steps, clips)
    whole = parameter_cost(s.teacher.sizes).total(s.teacher.sizes)
    paper = parameter_cost(s.teacher.sizes).total(profile.mobile)
    folder = runs_dir(profile.name) / "pruning_libraries" / f"{teacher_hash(profile.name)}-{steps}-{clips}-{RECIPE}"
    folder.mkdir(parents=True, exist_ok=True)
    rows, banks = [], {}
    for label, budget in (("0.7", 0.7 * whole), ("paper", paper)):
        for name, choose in tqdm(choices(s, budget, label == "paper").items(), desc=f"budget {label}", ascii=True):
            kept = folder / f"{label}-{re.sub('[^A-Za-z0-9]+', '_', name)}.json"
            done = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
            if len(done) < seeds and not (done and "refused" in done[0]):
                try:
                    done = _rows(s, {"arm": name, "budget": label}, choose, done, seeds, banks, kept)
                except BudgetError as error:
                    done = [{"arm": name, "budget": label, "seed": 0, "refused": str(error)}]
                    write_bytes(kept, json.dumps(done).encode())
            rows += done
    return pd.DataFrame(rows)


def _rows(
    s: Setting,
    row: dict,
    choose: Callable[[], LibraryPlan],
    done: list[dict],
    seeds: int,
    banks: dict[int, TeacherBank],
    kept: Path,
) -> list[dict]:
    """The missing seeds of one arm, each kept as soon as it is there."""
    chosen, start = prepared(s, row["arm"], choose())
    whole = parameter_cost(s.teacher.sizes).total(s.teacher.sizes)
    for seed in range(len(done), seeds):
        bank = banks.setdefault(seed, s.bank(seed))
        tried = {rate: recovered(s, chosen, start, bank, rate) for rate in ([done[0]["rate"]] if done else RATES)}
        rate = min(tried, key=lambda r: float(output_errors(tried[r], s.choice).mean()))
        found = {"seed": seed, "share": chosen.plan.parameters / whole, "rate": rate}
        done.append({**row, **found, **measured(s, chosen, start, tried[rate], seed)})
        write_bytes(kept, json.dumps(done).encode())
    return done


def main(arguments: list[str] | None = None) -> None:
    """Command line: run what is missing, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", choices=sorted(PROFILES), help="sizes and artefacts")
    parser.add_argument("--steps", type=int, default=30, help="recovery steps of every arm")
    parser.add_argument("--seeds", type=int, default=3, help="recoveries of every arm")
    parser.add_argument("--clips", type=int, default=32, help="clips of each MiniVBench score")
    parser.add_argument("--out", type=Path, default=record_folder(), help="where the record goes")
    options = parser.parse_args(arguments)
    profile = get_profile(options.profile)
    table = run(profile, options.steps, options.seeds, options.clips)
    facts = {
        "date": datetime.date.today().isoformat(),
        "teacher": teacher_hash(profile.name),
        "profile": profile.name,
        "steps": options.steps,
        "seeds": options.seeds,
        "clips": options.clips,
        "calibration samples": CALIBRATION * profile.calibration_clips,
        "rates": list(RATES),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "libraries": sorted({name for name in table["library"].dropna() if name}),
    }
    write_record(options.out / RECORD, table, facts)
    print(table.drop(columns="refused", errors="ignore").to_string(index=False))


if __name__ == "__main__":
    main()

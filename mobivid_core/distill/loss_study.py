"""Recorded arms at equal compute: `python -m mobivid_core.distill.loss_study losses --profile laptop`.

Paper: not part of it; answers R4.1 (what distillation costs, and what its losses buy).

* losses: every arm of `mobivid_core.distill.arms` at one budget, over seeds;
* compute: quality against the budget, regression alone and with the adversarial stage;
* seeds: the same two arms at one budget, over more seeds.

A trial takes minutes, so notebook 05 shows the record in `data/benchmarks/`. Interrupted, the command goes on with the
trials that are missing.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from mobivid_core import artifacts
from mobivid_core.compress.library_record import record_folder, teacher_hash
from mobivid_core.distill.arms import ARMS, BOTH, REGRESSION, ArmResult, arm_stages, run_arm
from mobivid_core.distill.comparison import frechet_ratio, mean_ratio
from mobivid_core.distill.recipe import Recipe, costs_of, teacher_trajectories
from mobivid_core.distill.solvers import Sampler
from mobivid_core.distill.trajectory import STUDENT_STEPS
from mobivid_core.evaluate.generation import Evaluation, Evaluator
from mobivid_core.evaluate.judge import Judge
from mobivid_core.files import write_bytes
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import PROFILES, Profile, get_profile
from mobivid_core.report.records import write_record
from mobivid_core.training.latents import latent_dataset

STUDIES = ("losses", "compute", "seeds")
#: Seeds of a study, where the command line says nothing else.
SEEDS = {"losses": 3, "compute": 1, "seeds": 5}


@dataclass(frozen=True)
class Trial:
    """One arm at one budget with one seed."""

    arm: str
    tflop: float
    seed: int


def trials(name: str, tflop: float, seeds: int) -> list[Trial]:
    """The trials of a study, seed by seed.

    Args:
        name: One of `STUDIES`.
        tflop: Counted training FLOPs of a trial, in 1e12; the study "compute" also takes an eighth, a quarter, a half.
        seeds: Seeds.
    """
    arms = ARMS if name == "losses" else (REGRESSION, BOTH)
    budgets = [tflop / k for k in (8, 4, 2, 1)] if name == "compute" else [tflop]
    return [Trial(arm, budget, seed) for seed in range(seeds) for budget in budgets for arm in arms]


class Bench:
    """Models, trajectories and test captions that all trials share."""

    def __init__(self, profile: Profile, start: str, *, trajectories: int, clips: int) -> None:
        """Load everything.

        Args:
            profile: Sizes and artefacts.
            start: What each trial starts from: a stage ("student", "pruned"), or a folder with a transformer.
            trajectories: Guided teacher trajectories.
            clips: Test captions of each score.
        """
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
        self.before = self.score(Sampler("euler", STUDENT_STEPS).on(self.start))

    def score(self, sample) -> Evaluation:  # noqa: ANN001
        """Evaluation of a sampler on the first test captions, always with the same noises."""
        return self.evaluator.evaluate_sampler(sample, n=self.clips, keep=0, progress=False)

    def key(self, trial: Trial) -> str:
        """Short hash of everything that a trial depends on."""
        digest = hashlib.sha256(repr((trial, self.recipe, self.clips)).encode())
        for model in (self.start, self.teacher):
            for value in model.state_dict().values():
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(self, trial: Trial) -> ArmResult:
        """Train one trial."""
        first, second = (
            replace(s, seed=trial.seed + i) for i, s in enumerate((self.recipe.regression, self.recipe.adversarial))
        )
        stages = arm_stages(trial.arm, 1e12 * trial.tflop, self.costs, first, second)
        return run_arm(self.start, self.teacher, self.data, self.trajectories, stages, self.costs)

    def run(self, trial: Trial) -> dict:
        """Train and score one trial."""
        done = self.train(trial)
        after, reference = self.score(done.sample), self.evaluator.reference
        over = frechet_ratio(after.measures, self.before.measures, reference, seed=trial.seed)
        right = mean_ratio(after.measures, self.before.measures, after.labels, reference, "all_together")
        scores = after.scores
        return {
            "trial": trial.arm,
            "seed": trial.seed,
            "TFLOP (counted)": done.flops / 1e12,
            "updates": done.updates,
            "seconds": done.seconds,
            "all together": float(scores["all_together"]),
            "motion": float(scores["action"]),
            "dynamic degree": float(scores["dynamic_degree"]),
            "Frechet": float(scores["frechet_reconstruction"]),
            **dict(zip(("Frechet / start", "low", "high"), over, strict=True)),
            "accuracy / start": right[0],
            "recoveries": done.recoveries,
        }


def run_study(bench: Bench, todo: Sequence[Trial], folder: Path, title: str) -> pd.DataFrame:
    """All trials; finished ones are kept in `folder` and not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for trial in tqdm(todo, desc=title, ascii=True):
        kept = folder / f"{bench.key(trial)}.json"
        if not kept.is_file():
            write_bytes(kept, json.dumps(bench.run(trial)).encode())
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line: run what is missing, write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m mobivid_core.distill.loss_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", choices=STUDIES, help="which trials")
    parser.add_argument("--profile", default="laptop", choices=sorted(PROFILES), help="sizes and artefacts")
    parser.add_argument("--start", default="student", help="what trials start from: a stage or a folder")
    parser.add_argument(
        "--budget", type=float, default=10.0, help="training TFLOP of a trial (10: about 3 minutes on 2 cores)"
    )
    parser.add_argument("--clips", type=int, default=96, help="test captions of each score")
    parser.add_argument("--trajectories", type=int, default=6144, help="guided teacher trajectories")
    parser.add_argument("--seeds", type=int, help="seeds of each trial")
    parser.add_argument("--out", type=Path, help="where the record goes (default: the project's)")
    options = parser.parse_args(arguments)
    profile = get_profile(options.profile)
    seeds = options.seeds or SEEDS[options.study]
    bench = Bench(profile, options.start, trajectories=options.trajectories, clips=options.clips)
    folder = runs_dir(profile.name) / "distill" / "loss_study"
    table = run_study(bench, trials(options.study, options.budget, seeds), folder, options.study)
    facts = {
        "date": datetime.date.today().isoformat(),
        "teacher": teacher_hash(profile.name),
        "start": options.start,
        "tflop": options.budget,
        "clips": options.clips,
        "trajectories": options.trajectories,
        "seeds": seeds,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    place = (options.out or record_folder()) / f"distill_{options.study}"
    write_record(place, table, facts)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()

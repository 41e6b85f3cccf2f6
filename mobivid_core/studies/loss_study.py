"""Recorded arms at equal compute: `mobivid study losses --profile laptop`.

Paper: not part of it; answers R4.1 (what distillation costs, and what its losses buy).

* losses: every arm of `mobivid_core.studies.distillation_arms` at one budget, over seeds;
* compute: quality against the budget, regression alone and with the adversarial stage;
* seeds: the same two arms at one budget, over more seeds.

A trial takes minutes, so notebook 05 shows the record in `data/benchmarks/`. Interrupted, the command goes on with the
trials that are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from mobivid_core.command import CommandParser, above_zero, at_least_one, run_command
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import add_profile, get_profile
from mobivid_core.studies.distillation_arms import ARMS, BOTH, REGRESSION
from mobivid_core.studies.distillation_bench import Bench, Trial
from mobivid_core.studies.records import record_folder, run_trials, save_study

STUDIES = ("losses", "compute", "seeds")
#: Seeds of a study, where the command line says nothing else.
SEEDS = {"losses": 3, "compute": 1, "seeds": 5}


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


def run_study(bench: Bench, todo: Sequence[Trial], folder: Path, title: str) -> pd.DataFrame:
    """All trials; finished ones are kept in `folder` and not made again."""
    return run_trials(((bench.key(trial), partial(bench.run, trial)) for trial in todo), folder, title)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: run what is missing, write the record."""
    parser = CommandParser("study", __doc__)
    parser.add_argument("study", choices=STUDIES, help="which trials")
    add_profile(parser)
    parser.add_argument("--start", default="student", help="what trials start from: a stage or a folder")
    parser.add_argument(
        "--budget", type=above_zero, default=10.0, help="training TFLOP of a trial (10: about 3 minutes on 2 cores)"
    )
    parser.add_argument("--clips", type=at_least_one, default=96, help="test captions of each score")
    parser.add_argument("--trajectories", type=at_least_one, default=6144, help="guided teacher trajectories")
    parser.add_argument("--seeds", type=at_least_one, help="seeds of each trial")
    parser.add_out("folder of the record", record_folder())
    return run_command(_record, parser, arguments)


def _record(options: argparse.Namespace) -> None:
    profile = get_profile(options.profile)
    seeds = options.seeds or SEEDS[options.study]
    bench = Bench(profile, options.start, trajectories=options.trajectories, clips=options.clips)
    folder = runs_dir(profile.name) / "distill" / "loss_study"
    table = run_study(bench, trials(options.study, options.budget, seeds), folder, options.study)
    used = {"start": options.start, "tflop": options.budget, "clips": options.clips}
    used |= {"trajectories": options.trajectories, "seeds": seeds}
    save_study(options.out / f"distill_{options.study}", table, profile.name, **used)

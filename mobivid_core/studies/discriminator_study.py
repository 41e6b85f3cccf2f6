"""Recorded trials of the adversarial stage: `mobivid study heads`.

Paper: its discriminator ablation (Table 5; R1.4) and the real : synthetic share (R4.4). Each trial takes the same
student, trajectories, seeds and number of updates and changes one thing. A trial takes minutes, so the notebook shows
the record in `data/benchmarks/`; interrupted, the command goes on with the trials that are missing.
"""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from mobivid_core.distill.adversarial import Contest, RealPool
from mobivid_core.distill.discriminator import TeacherDiscriminator, default_depths
from mobivid_core.distill.trainer import Distiller
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.show.outcome import TableResult
from mobivid_core.studies import records
from mobivid_core.studies.distillation_arms import FOUR, Bench
from mobivid_core.studies.records import provenance, read_study, run_study, run_trials

#: Trial -> (settings that change, how its discriminator is built, synthetic share).
Trial = tuple[dict, Callable[[nn.Module], TeacherDiscriminator], float]
RECORDS = {name: f"distill_{name}" for name in ("heads", "share")}


def _untrained(teacher: nn.Module) -> nn.Module:
    """The teacher's architecture with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fresh = MobiVidTransformer3DModel.from_sizes(teacher.sizes)
    return fresh.to(next(teacher.parameters()).device).eval().requires_grad_(False)


def trials(name: str, blocks: int) -> dict[str, Trial]:
    """The trials of the study "heads" or "share" with a teacher of so many blocks."""
    depths, last = default_depths(blocks), blocks - 1
    if name == "share":
        return {f"{share:.0%} synthetic": ({}, TeacherDiscriminator, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    return {
        f"teacher features, blocks {', '.join(map(str, depths))}": ({}, TeacherDiscriminator, 0.5),
        "no adversarial term": ({"adversarial_weight": 0.0}, TeacherDiscriminator, 0.5),
        "network with random weights": ({}, lambda t: TeacherDiscriminator(_untrained(t)), 0.5),
        "one early block": ({}, lambda t: TeacherDiscriminator(t, (depths[0],)), 0.5),
        "one late block": ({}, lambda t: TeacherDiscriminator(t, (last,)), 0.5),
        "spatial heads": ({}, lambda t: TeacherDiscriminator(t, kind="spatial"), 0.5),
        "low noise levels only": ({"renoise_high": 0.4}, TeacherDiscriminator, 0.5),
        "relativistic loss": ({"loss": "relativistic"}, TeacherDiscriminator, 0.5),
    }


def _row(bench: Bench, title: str, trial: Trial, updates: int, seed: int) -> dict:
    """Train and score one trial."""
    changes, build, share = trial
    base = replace(bench.recipe.adversarial, steps=updates, discriminator_warmup=max(2, updates // 3), seed=seed)
    settings, contest = replace(base, **changes), None
    if settings.adversarial_weight > 0:
        torch.manual_seed(seed)
        contest = Contest(build(bench.teacher), RealPool(bench.data, bench.trajectories, share), settings)
    student = copy.deepcopy(bench.start).requires_grad_(True)
    distiller = Distiller(student, bench.trajectories, settings, contest=contest)
    distiller.run()
    last = pd.DataFrame(distiller.log).tail(10)
    apart = float((last["real_logit"] - last["fake_logit"]).mean())
    judged = bench.judged(FOUR.on(distiller.averaged), seed)
    return {"trial": title, "seed": seed, **judged, "D(real) - D(student)": apart}


def load_study(name: str, teacher: str, folder: Path | None = None) -> tuple[pd.DataFrame, str]:
    """The recorded study "heads" or "share" and one sentence on where it comes from.

    `teacher` is `teacher_hash` of this run; `folder` None means the project's records.
    """
    rows, facts = read_study(RECORDS[name], name, folder=folder)
    made = f": {facts['updates']} updates from the student that shipped then, {facts['clips']} test captions"
    return rows, provenance(facts, f"{made}, {facts['seeds']} seed(s)", teacher, rows)


#: Trials that claims and questions are about.
CONTROL, SCRATCH, MIXED = "no adversarial term", "network with random weights", "50% synthetic"
ALONE = ("0% synthetic", "100% synthetic")
_MEASURE = "Frechet / start"


def over_trial(rows: pd.DataFrame, ours: str, other: str) -> Interval:
    """Distance of one trial over another's, paired by seed: `records.over_trial`."""
    return records.over_trial(rows, _MEASURE, ours, other)


def mixed_over_either(rows: pd.DataFrame) -> Interval:
    """Half real, half synthetic over the better of the two alone."""
    means = rows.groupby("trial")[_MEASURE].mean()
    return over_trial(rows, MIXED, min(ALONE, key=lambda name: means[name]))


def study_table(rows: pd.DataFrame, source: str, name: str) -> TableResult:
    """What `load_study` gave for the study `name` as a table with its finding."""
    columns = [c for c in ("all together", _MEASURE, "accuracy / start", "D(real) - D(student)") if c in rows]
    table = rows.groupby("trial", sort=False)[columns].mean().reset_index()
    first = CONTROL if name == "heads" else ALONE[0]
    table = records.beside_trial(table, rows, _MEASURE, first)
    clear = table.loc[(table["high"] < 1) | (table["low"] > 1), "trial"]
    spread = table[_MEASURE].max() - table[_MEASURE].min()
    return TableResult(
        table,
        f"Distance after the trial over that of its start: from {table[_MEASURE].min():.3f} to "
        f"{table[_MEASURE].max():.3f}, a spread of {spread:.3f}; {len(clear)} of {len(table) - 1} trials differ from "
        f"'{first}' beyond chance over seeds. {source}",
        "recorded",
        "Table 5, R1.4" if name == "heads" else "R4.4",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: run what is missing, write the record."""
    return run_study(RECORDS, __doc__, _work, {"updates": 64, "clips": 64, "seeds": 3}, arguments)


def _work(options: Namespace) -> tuple[pd.DataFrame, dict]:
    profile, updates = get_profile(options.profile), options.updates
    bench = Bench(profile, "student", trajectories=8 * profile.batch, clips=options.clips)
    made = (
        (bench.key((title, updates, seed)), partial(_row, bench, title, trial, updates, seed))
        for title, trial in trials(options.study, bench.teacher.sizes.blocks).items()
        for seed in range(options.seeds)
    )
    return run_trials(made, runs_dir(profile.name) / "distill" / "study", options.study), {}

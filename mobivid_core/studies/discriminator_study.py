"""Recorded trials of the adversarial stage: `mobivid study heads`.

Paper: its discriminator ablation (Table 5; R1.4) and the real : synthetic share (R4.4). Each trial takes the same
student, trajectories, seeds and number of updates and changes one thing. A trial takes minutes, so the notebook shows
the record in `data/benchmarks/`; interrupted, the command goes on with the trials that are missing.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from mobivid_core.command import CommandParser, at_least_one, run_command
from mobivid_core.distill.adversarial import Contest, RealPool
from mobivid_core.distill.discriminator import TeacherDiscriminator, default_depths
from mobivid_core.distill.solvers import Sampler
from mobivid_core.distill.trainer import Distiller
from mobivid_core.files import write_bytes
from mobivid_core.measure.comparison import distance_ratio, mean_ratio
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile, add_profile, get_profile
from mobivid_core.studies.distillation_bench import Bench
from mobivid_core.studies.library_record import record_folder, teacher_hash
from mobivid_core.studies.records import read_record, whose_space, whose_teacher, write_record

#: Trial -> (settings that change, how its discriminator is built, synthetic share).
Trial = tuple[dict, Callable[[nn.Module], TeacherDiscriminator], float]
#: Student's four unguided steps.
_FOUR = Sampler("euler", 4)


def _untrained(teacher: nn.Module) -> nn.Module:
    """The teacher's architecture with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fresh = MobiVidTransformer3DModel.from_sizes(teacher.sizes)
    return fresh.to(next(teacher.parameters()).device).eval().requires_grad_(False)


def trials(name: str, blocks: int) -> dict[str, Trial]:
    """The trials of a study: "heads" or "share".

    Args:
        name: The study.
        blocks: Blocks of the teacher.
    """
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


def run(name: str, profile: Profile, updates: int, clips: int, seeds: int) -> pd.DataFrame:
    """All trials of a study; finished ones are kept in the run's folder."""
    bench = Bench(profile, "student", trajectories=8 * profile.batch, clips=clips)
    folder = runs_dir(profile.name) / "distill" / "study"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    todo = [(t, seed) for t in trials(name, bench.teacher.sizes.blocks).items() for seed in range(seeds)]
    for (title, trial), seed in tqdm(todo, desc=name, ascii=True):
        kept = folder / f"{bench.key((title, updates, seed))}.json"
        if not kept.is_file():
            write_bytes(
                kept, json.dumps({"trial": title, "seed": seed, **_trial(bench, trial, updates, seed)}).encode()
            )
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return pd.DataFrame(rows)


def _trial(bench: Bench, trial: Trial, updates: int, seed: int) -> dict:
    """What one trial's row says."""
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
    after, reference = bench.score(_FOUR.on(distiller.averaged)), bench.evaluator.reference
    over = distance_ratio(after.measures, bench.before.measures, reference, seed=seed)
    right = mean_ratio(after.measures, bench.before.measures, after.labels, reference, "all_together", seed=seed)
    return {
        "all together": float(after.scores["all_together"]),
        **dict(zip(("Frechet / start", "low", "high"), over, strict=True)),
        "accuracy / start": right[0],
        "distances in": reference.space.title,
        "D(real) - D(student)": float((last["real_logit"] - last["fake_logit"]).mean()),
    }


def load_study(name: str, teacher: str, folder: Path | None = None) -> tuple[pd.DataFrame, str]:
    """A recorded study and one sentence on where it comes from.

    Args:
        name: "heads" or "share".
        teacher: `teacher_hash` of this run.
        folder: Of the records; None for the project's.

    Raises:
        CheckpointError: There is no such record.
    """
    place = (folder or record_folder()) / f"distill_{name}"
    rows, facts = read_record(place, f"mobivid study {name}")
    return rows, (
        f"Recorded on {facts['date']}: {facts['updates']} updates from the student that shipped then, "
        f"{facts['clips']} test captions, {facts['seeds']} seed(s), on {whose_teacher(facts, teacher)}; distances in "
        f"{whose_space(rows)}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: run what is missing, write the record."""
    parser = CommandParser("study", __doc__)
    parser.add_argument("study", choices=("heads", "share"), help="which trials")
    add_profile(parser)
    parser.add_argument("--updates", type=at_least_one, default=16, help="updates of each trial")
    parser.add_argument("--clips", type=at_least_one, default=64, help="test captions of each score")
    parser.add_argument("--seeds", type=at_least_one, default=1, help="seeds of each trial")
    parser.add_out("folder of the record", record_folder())
    return run_command(_study, parser, arguments)


def _study(options: argparse.Namespace) -> None:
    profile = get_profile(options.profile)
    table = run(options.study, profile, options.updates, options.clips, options.seeds)
    facts = {
        "date": datetime.date.today().isoformat(),
        "teacher": teacher_hash(profile.name),
        "updates": options.updates,
        "clips": options.clips,
        "seeds": options.seeds,
    }
    write_record(options.out / f"distill_{options.study}", table, facts)
    print(table.to_string(index=False))

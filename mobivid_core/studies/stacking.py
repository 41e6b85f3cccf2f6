"""Pruning and distillation, alone and stacked, at equal compute: `mobivid study stacking`.

Paper: reviewers asked what each part contributes (R3.1). From the teacher and from the pruned model alike: as it is in
full guided steps, as it is in four unguided ones, and after a short regression on the same trajectories with the same
counted FLOPs. A record, `data/benchmarks/distill_stacking.*`, which notebook 07 shows beside the counted costs of all
eight combinations with compression.

Simplified: compression is not crossed in quality, since every VAE would need a teacher of its own (notebook 01 trains
a small denoiser for each).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd

from mobivid_core.command import CommandParser, above_zero, at_least_one, run_command
from mobivid_core.distill.trajectory import STUDENT_STEPS
from mobivid_core.measure.comparison import distance_ratio, mean_ratio
from mobivid_core.measure.generation import Evaluation
from mobivid_core.models.sampler import Sampler
from mobivid_core.profiles import add_profile, get_profile
from mobivid_core.studies.distillation_arms import REGRESSION
from mobivid_core.studies.distillation_bench import Bench, Trial
from mobivid_core.studies.records import read_record, record_folder, save_study, whose_teacher

RECORD = "distill_stacking"
COMMAND = "mobivid study stacking"


def stacked_rows(profile_name: str, start: str, tflop: float, clips: int, trajectories: int) -> list[dict]:
    """Rows of the four combinations, each over the guided teacher's full sampler.

    Args:
        profile_name: Sizes and artefacts.
        start: The pruned model: a stage or a folder.
        tflop: Counted training FLOPs of each distillation, in 1e12.
        clips: Test captions.
        trajectories: Guided teacher trajectories.
    """
    profile = get_profile(profile_name)
    full = Sampler("euler", profile.teacher_sampling_steps, profile.guidance)
    few = Sampler("euler", STUDENT_STEPS)
    rows, reference = [], None
    for pruned, stage in ((False, "teacher"), (True, start)):
        bench = Bench(profile, stage, trajectories=trajectories, clips=clips)
        student = bench.train(Trial(REGRESSION, tflop, 0)).student
        for distilled, model, sampler in ((False, bench.start, full), (False, bench.start, few), (True, student, few)):
            found = bench.score(sampler.on(model))
            reference = found if reference is None else reference
            rows.append(
                {"pruned": pruned, "distilled": distilled, "sampler": sampler.name, **_row(bench, found, reference)}
            )
    return rows


def _row(bench: Bench, found: Evaluation, reference: Evaluation) -> dict:
    """Accuracy and Frechet distance over those of the first row."""
    distances = bench.evaluator.reference
    right = mean_ratio(found.measures, reference.measures, found.labels, distances, "all_together")
    apart = distance_ratio(found.measures, reference.measures, distances)
    return {
        "all together": float(found.scores["all_together"]),
        **dict(zip(("accuracy / teacher", "accuracy low", "accuracy high"), right, strict=True)),
        **dict(zip(("Frechet / teacher", "Frechet low", "Frechet high"), apart, strict=True)),
    }


def load_stacking(teacher: str) -> tuple[pd.DataFrame, str]:
    """The record, and one sentence on where it comes from.

    Args:
        teacher: `teacher_hash` of this run.

    Raises:
        CheckpointError: There is no such record.
    """
    rows, facts = read_record(record_folder() / RECORD, COMMAND)
    return rows, (
        f"Recorded on {facts['date']}: {facts['tflop']:g} TFLOP of distillation each, {facts['clips']} test captions, "
        f"on {whose_teacher(facts, teacher)}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: train, score, write the record."""
    parser = CommandParser("study stacking", __doc__)
    add_profile(parser)
    parser.add_argument("--start", default="pruned", help="the pruned model: a stage or a folder")
    parser.add_argument("--budget", type=above_zero, default=6.0, help="training TFLOP of each distillation")
    parser.add_argument("--clips", type=at_least_one, default=64, help="test captions of each score")
    parser.add_argument("--trajectories", type=at_least_one, default=6144, help="guided teacher trajectories")
    parser.add_out("folder of the record", record_folder())
    return run_command(_record, parser, arguments)


def _record(options: argparse.Namespace) -> None:
    rows = stacked_rows(options.profile, options.start, options.budget, options.clips, options.trajectories)
    used = {"tflop": options.budget, "clips": options.clips, "trajectories": options.trajectories}
    save_study(options.out / RECORD, pd.DataFrame(rows), options.profile, **used)

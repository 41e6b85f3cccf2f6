"""Pruning and distillation, alone and stacked, at equal compute: `mobivid study stacking`.

Paper: reviewers asked what each part contributes (R3.1). From the teacher and from the pruned model alike: as it is in
full guided steps, as it is in four unguided ones, and after a short regression on the same trajectories with the same
counted FLOPs. A record, `data/benchmarks/distill_stacking.*`, which notebook 07 shows beside the counted costs of all
eight combinations with compression.

Simplified: compression is not crossed in quality, since every VAE would need a teacher of its own (notebook 01 trains
a small denoiser for each).
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import pandas as pd

from mobivid_core.distill.student import FOUR_STEPS
from mobivid_core.measure.comparison import distance_ratio, mean_ratio
from mobivid_core.measure.generation import Evaluation
from mobivid_core.measure.minivbench import Reference
from mobivid_core.models.sampler import Sampler
from mobivid_core.studies.distillation_arms import REGRESSION, Bench, Trial
from mobivid_core.studies.records import provenance, read_study, run_study

RECORDS = {"stacking": "distill_stacking"}


def _work(options: Namespace) -> tuple[pd.DataFrame, dict]:
    """Rows of the four combinations, each over the guided teacher's full sampler."""
    rows, first = [], None
    for pruned, stage in ((False, "teacher"), (True, options.start)):
        bench = Bench(options, stage)
        full = Sampler("euler", bench.profile.teacher_sampling_steps, bench.profile.guidance)
        student = bench.run_stages(bench.stages(Trial(REGRESSION, options.tflop, 0))).student
        for distilled, model, sampler in (
            (False, bench.start, full),
            (False, bench.start, FOUR_STEPS),
            (True, student, FOUR_STEPS),
        ):
            found = bench.score(sampler.on(model))
            first = found if first is None else first
            row = {"pruned": pruned, "distilled": distilled, "sampler": sampler.name}
            rows.append(row | _over(found, first, bench.evaluator.reference))
    return pd.DataFrame(rows), {}


def _over(found: Evaluation, first: Evaluation, reference: Reference) -> dict:
    """Accuracy and Frechet distance over those of the first row."""
    right = mean_ratio(found.measures, first.measures, found.labels, reference, "all_together")
    apart = distance_ratio(found.measures, first.measures, reference)
    return {
        "all together": float(found.scores["all_together"]),
        **dict(zip(("accuracy / teacher", "accuracy low", "accuracy high"), right, strict=True)),
        **dict(zip(("Frechet / teacher", "Frechet low", "Frechet high"), apart, strict=True)),
    }


def load_stacking(teacher: str) -> tuple[pd.DataFrame, str]:
    """The record, and one sentence on where it comes from (`provenance`); a `CheckpointError` where there is none."""
    rows, facts = read_study(RECORDS["stacking"], "stacking")
    made = f": {facts['tflop']:g} TFLOP of distillation each, {facts['clips']} test captions"
    return rows, provenance(facts, made, teacher)


main = partial(run_study, RECORDS, __doc__, _work, {"start": "pruned", "tflop": 6.0, "clips": 64, "trajectories": 6144})

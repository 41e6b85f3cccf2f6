"""How many times faster, over runs: `mobivid study speed` times teacher and students once more and adds a run.

Paper: the speed-up of step distillation (C24). Repeats within one run share a machine's mood: a second run can lie
outside the first one's interval. So runs are processes of their own, on whatever day, and the interval is over them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from mobivid_core import artifacts
from mobivid_core.data.captions import caption
from mobivid_core.distill.student import FOUR_STEPS
from mobivid_core.errors import CheckpointError
from mobivid_core.measure import intervals
from mobivid_core.measure.comparison import Seconds, measure_seconds
from mobivid_core.measure.generation import Evaluator
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.judge import Judge
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import get_profile
from mobivid_core.studies.records import read_study, run_study, teacher_hash

RECORDS = {"speed": "speed_runs"}
TEACHER, DISTILLED, PRUNED = "teacher, full", "distilled teacher, 4 steps", "pruned student, 4 steps"


@dataclass(frozen=True)
class SpeedRuns:
    """Timings of several runs (columns run, sampler, batch, repeat, seconds) and facts of the last one."""

    rows: pd.DataFrame
    facts: dict

    @classmethod
    def load(cls, teacher: str, folder: Path | None = None) -> SpeedRuns | None:
        """The record; None if there is none of this teacher's, or of one run alone."""
        try:
            rows, facts = read_study(RECORDS["speed"], "speed", folder=folder)
        except CheckpointError:
            return None
        return cls(rows, facts) if facts["teacher"] == teacher and rows["run"].nunique() > 1 else None

    def faster(self, slow: str, fast: str, batch: int) -> Interval:
        """How many times faster `fast` is in batches of `batch` clips; over runs, see `intervals.speed`."""
        rows = self.rows[self.rows["batch"] == batch]
        taken = {
            name: [r["seconds"].to_numpy() for _, r in rows[rows["sampler"] == name].groupby("run")]
            for name in (slow, fast)
        }
        return intervals.speed(taken[slow], taken[fast])

    def finding(self) -> str:
        """One sentence for a finding."""
        runs = self.rows["run"].nunique()
        return f"Recorded over {runs} runs, the last on {self.facts['date']}, {self.facts['threads']} thread(s)."


def speed_of(live: Seconds, runs: SpeedRuns | None, slow: str, fast: str, batch: int) -> Interval:
    """Over recorded runs where there are any, else over the repeats of the run that shows it."""
    return live.faster(slow, fast) if runs is None else runs.faster(slow, fast, batch)


def one_run(profile_name: str, turns: int, batches: Sequence[int]) -> pd.DataFrame:
    """Seconds a clip of teacher and students, measured in turns: columns sampler, batch, repeat, seconds."""
    profile, rows = get_profile(profile_name), []
    kinds = {"vae": MobiVidVAE, "judge": Judge}
    kinds |= dict.fromkeys(("teacher", "distilled", "student"), MobiVidTransformer3DModel)
    models = {k: artifacts.load_model(kind, artifacts.find(k, profile.name).path) for k, kind in kinds.items()}
    vae, judge = models["vae"], models["judge"]
    evaluator = Evaluator.prepare(vae, judge, profile, n=max(4, *batches), progress=False)
    full, four = Sampler("euler", profile.teacher_sampling_steps, profile.guidance), FOUR_STEPS
    timed = {TEACHER: ("teacher", full), DISTILLED: ("distilled", four), PRUNED: ("student", four)}
    for batch in batches:
        words, noise = [caption(label) for label in evaluator.labels[:batch]], evaluator.noise(range(batch))
        calls = {name: (lambda m=models[k], s=s: s.on(m)(words, noise)) for name, (k, s) in timed.items()}  # noqa: B023
        found = measure_seconds(calls, turns=turns, clips=batch, long=[TEACHER])
        rows += [
            {"sampler": name, "batch": batch, "repeat": i, "seconds": s}
            for name, seconds in found.taken.items()
            for i, s in enumerate(seconds)
        ]
    return pd.DataFrame(rows)


def _work(options: Namespace) -> tuple[pd.DataFrame, dict]:
    """The runs of the record that are of this teacher, and a new one."""
    new = one_run(options.profile, options.turns, options.batches)
    try:
        rows, facts = read_study(RECORDS["speed"], "speed", folder=options.out)
        kept = rows if facts["teacher"] == teacher_hash(options.profile) else rows.iloc[:0]
    except CheckpointError:
        kept = pd.DataFrame()
    number = 0 if kept.empty else int(kept["run"].max()) + 1
    new.insert(0, "run", number)
    return (new if kept.empty else pd.concat([kept, new], ignore_index=True)), {}


main = partial(run_study, RECORDS, __doc__, _work, {"turns": 6, "batches": [1, 16]})

"""How many times faster, over runs: `mobivid study speed` times teacher and students once more and adds a run.

Paper: the speed-up of step distillation (C24). Repeats within one run share a machine's mood: a second run can lie
outside the first one's interval. So runs are processes of their own, on whatever day, and the interval is over them.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mobivid_core import artifacts
from mobivid_core.command import CommandParser, at_least_one, run_command
from mobivid_core.data.captions import caption
from mobivid_core.errors import CheckpointError
from mobivid_core.measure import intervals
from mobivid_core.measure.comparison import Seconds, measure_seconds
from mobivid_core.measure.generation import Evaluator
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.judge import Judge
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import add_profile, get_profile
from mobivid_core.studies.library_record import record_folder, teacher_hash
from mobivid_core.studies.records import read_record, write_record

if TYPE_CHECKING:
    import argparse

RECORD, COMMAND = "speed_runs", "mobivid study speed"
TEACHER, DISTILLED, PRUNED = "teacher, full", "distilled teacher, 4 steps", "pruned student, 4 steps"


@dataclass(frozen=True)
class SpeedRuns:
    """Timings of several runs.

    Attributes:
        rows: Columns run, sampler, batch, repeat, seconds.
        facts: Date of the last run, teacher, threads.
    """

    rows: pd.DataFrame
    facts: dict

    @classmethod
    def load(cls, teacher: str, folder: Path | None = None) -> SpeedRuns | None:
        """The record; None if there is none of this teacher's, or of one run alone."""
        try:
            rows, facts = read_record((folder or record_folder()) / RECORD, COMMAND)
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
    """Seconds a clip of teacher and students, measured in turns.

    Args:
        profile_name: Sizes and artefacts.
        turns: Turns of each batch size.
        batches: Clips made at once.

    Returns:
        Columns sampler, batch, repeat, seconds.
    """
    profile, rows = get_profile(profile_name), []
    models = {
        stage: artifacts.load_model(MobiVidTransformer3DModel, artifacts.find(stage, profile.name).path)
        for stage in ("teacher", "distilled", "student")
    }
    vae, judge = (
        artifacts.load_model(kind, artifacts.find(stage, profile.name).path)
        for stage, kind in (("vae", MobiVidVAE), ("judge", Judge))
    )
    evaluator = Evaluator.prepare(vae, judge, profile, n=max(4, *batches), progress=False)
    full, four = Sampler("euler", profile.teacher_sampling_steps, profile.guidance), Sampler("euler", 4)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: time once more, add the run to the record."""
    parser = CommandParser("study speed", __doc__)
    add_profile(parser)
    parser.add_argument("--turns", type=at_least_one, default=6, help="turns of each batch size")
    parser.add_argument("--batches", type=at_least_one, nargs="+", default=[1, 16], help="clips made at once")
    parser.add_out("folder of the record", record_folder())
    return run_command(_record, parser, arguments)


def _record(options: argparse.Namespace) -> None:
    import torch

    place, teacher = options.out / RECORD, teacher_hash(options.profile)
    new = one_run(options.profile, options.turns, options.batches)
    try:
        rows, facts = read_record(place, COMMAND)
        kept = rows if facts["teacher"] == teacher else rows.iloc[:0]
    except CheckpointError:
        kept = pd.DataFrame(columns=["run", *new.columns])
    number = 0 if kept.empty else int(kept["run"].max()) + 1
    table = pd.concat([kept, new.assign(run=number)], ignore_index=True) if len(kept) else new.assign(run=number)
    facts = {"date": datetime.date.today().isoformat(), "teacher": teacher, "threads": torch.get_num_threads()}
    write_record(place, table[["run", *new.columns]], facts)
    medians = new.groupby(["batch", "sampler"])["seconds"].median()
    print(f"run {number}: {len(np.unique(table['run']))} runs in {place}.csv\n{medians.to_string()}")

"""Does the adversarial term help a student that regression has finished? `mobivid study adversarial`.

Paper: adversarial step distillation (claim C36). Both arms start from the shipped student, keep the regression loss
and get the same counted compute; one adds the adversarial term, with a discriminator that is warmed up alone first.
Each arm tries as many settings on validation captions, with half of the compute; its best one is then trained from
several seeds and judged on test captions. Interrupted, the command goes on with the missing trials.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from mobivid_core.measure.intervals import Interval
from mobivid_core.show.outcome import TableResult
from mobivid_core.studies.distillation_arms import Bench, Stage, filled
from mobivid_core.studies.records import over_trial, provenance, read_study, run_study, run_trials

RECORDS = {"adversarial": "distill_adversarial"}
ALONE, WITH = "regression goes on", "with the adversarial term"
SEARCH, FINAL = "search", "final"
#: Share of the compute that a trial of the search gets.
SEARCHED_WITH = 0.5
#: Updates of the heads alone. At a rate of 5e-3 they then told 82 of 100 held-out pairs of real and generated clips
#: apart; at this recipe's rate it was not measured.
WARMUP = 150
NEEDED = ["round", "trial", "seed", "rate", "weight", "all together", "Frechet"]


@dataclass(frozen=True)
class Setting:
    """One training: peak rate of the student, and weight of the adversarial term."""

    rate: float
    weight: float

    @property
    def trial(self) -> str:
        """Name of its arm."""
        return WITH if self.weight else ALONE

    def stage(self, bench: Bench, tflop: float, seed: int) -> Stage:
        """The training that so much compute pays."""
        changed = replace(
            bench.recipe.adversarial, rate=self.rate, adversarial_weight=self.weight, discriminator_warmup=WARMUP,
            r1_weight=0.0, seed=seed,
        )  # fmt: skip
        return filled(Stage(changed), 1e12 * tflop, bench.costs, WARMUP)


#: What is searched: as many settings of each arm.
SETTINGS = (Setting(1e-4, 0.0), Setting(3e-4, 0.0), Setting(1e-4, 0.1), Setting(1e-4, 0.3))


def chosen(rows: pd.DataFrame) -> list[Setting]:
    """The best of each arm in the search: nearest among those with at most .02 fewer right clips than the most."""
    found = []
    for _, part in rows[rows["round"] == SEARCH].groupby("trial", sort=False):
        able = part[part["all together"] >= part["all together"].max() - 0.02]
        best = able.loc[able["Frechet"].idxmin()]
        found.append(Setting(float(best["rate"]), float(best["weight"])))
    return found


@dataclass(frozen=True)
class AdversarialRecord:
    """The recorded study, and one sentence on where it comes from."""

    rows: pd.DataFrame
    source: str

    @classmethod
    def load(cls, teacher: str, folder: Path | None = None) -> AdversarialRecord:
        """Read it; `teacher` is `teacher_hash` of this run; `folder` None means the project's records."""
        rows, facts = read_study(RECORDS["adversarial"], "adversarial", NEEDED, folder)
        made = (
            f" with torch {facts['torch']}: {facts['tflop']:g} TFLOP a trial from the student that shipped then, "
            f"{facts['clips']} captions, {facts['seeds']} seed(s)"
        )
        return cls(rows, provenance(facts, made, teacher, rows))

    def over(self) -> Interval:
        """Distance with the adversarial term over that of regression alone, paired by seed."""
        return over_trial(self.rows[self.rows["round"] == FINAL], "Frechet", WITH, ALONE)

    def table(self) -> TableResult:
        """Search and final rows with the finding."""
        shown = self.rows.drop(columns=["dynamic degree", "distances in", "recoveries"], errors="ignore")
        ratio, final = self.over(), self.rows[self.rows["round"] == FINAL]
        means = final.groupby("trial")[["all together", "Frechet", "sharpness", "updates"]].mean()
        told = "; ".join(
            f"{name}: {row['updates']:.0f} updates, {row['all together']:.1%} right, distance {row['Frechet']:.1f}, "
            f"sharpness {row['sharpness']:.4f}"
            for name, row in means.iterrows()
        )
        return TableResult(
            shown,
            f"{told}. Distance with the term over without, paired by seed: {ratio}. {self.source}",
            "recorded",
            "Table 5",
        )


def trial(bench: Bench, split: str, what: Setting, tflop: float, seed: int) -> tuple[str, Callable[[], dict]]:
    """A trial as `run_trials` takes it: judged on validation ("val") captions in the search, else on test captions."""
    stage = what.stage(bench, tflop, seed)

    def row() -> dict:
        name = SEARCH if split == "val" else FINAL
        first = {"round": name, "trial": what.trial, "seed": seed, "rate": what.rate, "weight": what.weight}
        return first | bench.on(split).row(bench.run_stages((stage,)), seed)

    return bench.key(split, stage), row


def _work(options: Namespace) -> tuple[pd.DataFrame, dict]:
    bench = Bench(options, compiled=True)
    folder, less = bench.folder / "adversarial_study", SEARCHED_WITH * options.tflop
    searched = run_trials((trial(bench, "val", what, less, 0) for what in SETTINGS), folder, SEARCH)
    seeds, best = range(1, 1 + options.seeds), chosen(searched)
    finals = (trial(bench, "test", what, options.tflop, seed) for seed in seeds for what in best)
    return pd.concat([searched, run_trials(finals, folder, FINAL)], ignore_index=True), {"bf16": bench.bf16}


DEFAULTS = {"start": "student", "tflop": 40.0, "clips": 256, "trajectories": 2048, "seeds": 5}
main = partial(run_study, RECORDS, __doc__, _work, DEFAULTS)

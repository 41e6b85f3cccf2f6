"""Ways to distil at equal compute: `mobivid study losses`, and the record as notebook 05 shows it.

Paper: not part of it; answers R4.1 (what distillation costs, and what its losses buy).

* losses: every arm of `mobivid_core.studies.distillation_arms` at one budget, over seeds;
* compute: quality against the budget, regression alone (at one rate and at two) and with the adversarial stage.

A trial takes minutes. Interrupted, the command goes on with the trials that are missing.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from mobivid_core.measure.intervals import Interval
from mobivid_core.studies.distillation_arms import ARMS, BOTH, REGRESSION, SLOWER, Bench, Trial
from mobivid_core.studies.records import beside_trial, over_trial, provenance, read_study, run_study, run_trials

RECORDS = {name: f"distill_{name}" for name in ("losses", "compute")}
#: Seeds of a study, where the command line says nothing else.
SEEDS = {"losses": 3, "compute": 1}
NEEDED = ["trial", "seed", "TFLOP (counted)", "all together", "Frechet", "Frechet / start"]


def trials(name: str, tflop: float, seeds: int) -> list[Trial]:
    """The trials of a study, seed by seed, each with so many counted training TFLOP.

    The study "compute" also takes an eighth, a quarter and a half of them.
    """
    arms = ARMS if name == "losses" else (REGRESSION, SLOWER, BOTH)
    budgets = [tflop / k for k in (8, 4, 2, 1)] if name == "compute" else [tflop]
    return [Trial(arm, budget, seed) for seed in range(seeds) for budget in budgets for arm in arms]


@dataclass(frozen=True)
class LossRecord:
    """A recorded study: one row a trial, budget and seed, and one sentence on where the record comes from."""

    rows: pd.DataFrame
    source: str

    @classmethod
    def load(cls, name: str, teacher: str, folder: Path | None = None) -> LossRecord:
        """Read the record of "losses" or "compute".

        `teacher` is `teacher_hash` of this run; `folder` None means the project's records.
        """
        rows, facts = read_study(RECORDS[name], name, NEEDED, folder)
        made = f" with torch {facts['torch']}: from {facts['start']}, {facts['clips']} test captions"
        return cls(rows, provenance(facts, f"{made}, {facts['seeds']} seed(s)", teacher, rows))

    def table(self) -> pd.DataFrame:
        """One row a trial and budget: means over seeds, range of the Frechet distance."""
        rows = self.rows.assign(budget=self.rows["TFLOP (counted)"].round(1))
        grouped = rows.groupby(["trial", "budget"], sort=False)
        table = grouped.mean(numeric_only=True).drop(columns=["seed", "low", "high"], errors="ignore")
        table.insert(0, "seeds", grouped.size())
        table["lowest Frechet"], table["highest Frechet"] = grouped["Frechet"].min(), grouped["Frechet"].max()
        table = table.reset_index().drop(columns="budget")
        # one budget: a ratio to the regression at the same compute means something
        return beside_trial(table, self.rows, "Frechet", self.alone) if table["trial"].is_unique else table

    @property
    def alone(self) -> str:
        """The better of the trials with regression alone: at one rate, or at two as the arms of two stages."""
        means = self.rows.groupby("trial")["Frechet"].mean()
        return min((name for name in (REGRESSION, SLOWER) if name in means), key=lambda name: means[name])

    def over(self, trial: str) -> Interval | None:
        """Frechet distance of `trial` over that of `alone`, see `over_trial`; None of fewer than two seeds."""
        found = over_trial(self.rows, "Frechet", trial, self.alone)
        return found if found.n > 1 else None

    def growth(self) -> str:
        """One sentence: how the Frechet distance of each trial changes from its smallest to its largest budget."""
        told = []
        for trial, rows in self.rows.groupby("trial", sort=False):
            means = rows.groupby(rows["TFLOP (counted)"].round(1))["Frechet"].mean()
            told.append(
                f"{trial} from {means.iloc[0]:.1f} ({means.index[0]:g}) to {means.iloc[-1]:.1f} ({means.index[-1]:g})"
            )
        return f"Frechet distance at the smallest and the largest budget (TFLOP): {'; '.join(told)}. {self.source}"

    def verdict(self) -> str:
        """One sentence: which trials have a lower Frechet distance than regression alone, beyond chance over seeds."""
        found = {name: self.over(name) for name in self.rows["trial"].unique() if name != self.alone}
        found = {name: ratio for name, ratio in found.items() if ratio}
        if not found:
            return f"One seed: no interval over seeds. {self.source}"
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items())
        better = [name for name, ratio in found.items() if ratio.high < 1]
        ending = f"lower beyond chance: {', '.join(better)}" if better else "none is lower beyond chance"
        return f"Frechet distance over that of '{self.alone}', paired by seed: {told}; {ending}. {self.source}"


def _work(options: Namespace) -> tuple[pd.DataFrame, dict]:
    name, seeds = options.study, options.seeds or SEEDS[options.study]
    bench, asked = Bench(options), trials(name, options.tflop, seeds)
    made = ((bench.key(trial, bench.stages(trial)), partial(bench.run, trial)) for trial in asked)
    table = run_trials(made, bench.folder / "loss_study", name)
    return table, {"seeds": seeds, "bf16": bench.bf16}


DEFAULTS = {"start": "student", "tflop": 10.0, "clips": 96, "trajectories": 6144, "seeds": None}
main = partial(run_study, RECORDS, __doc__, _work, DEFAULTS)

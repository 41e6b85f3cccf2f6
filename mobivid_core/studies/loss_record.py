"""The recorded arms at equal compute, as notebook 05 shows them (see `mobivid_core.studies.loss_study`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mobivid_core.measure.intervals import Interval, cells, over_seeds
from mobivid_core.studies.distillation_arms import REGRESSION
from mobivid_core.studies.records import read_record, record_folder, whose_space, whose_teacher

NEEDED = ["trial", "seed", "TFLOP (counted)", "all together", "Frechet", "Frechet / start"]


@dataclass(frozen=True)
class LossRecord:
    """A recorded study.

    Attributes:
        rows: One row a trial, budget and seed.
        source: One sentence: where the record comes from.
    """

    rows: pd.DataFrame
    source: str

    @classmethod
    def load(cls, name: str, teacher: str, folder: Path | None = None) -> LossRecord:
        """Read a record.

        Args:
            name: "losses", "compute" or "seeds".
            teacher: `teacher_hash` of this run.
            folder: Of the records; None for the project's.

        Raises:
            CheckpointError: It is missing, or not such a record.
        """
        place = (folder or record_folder()) / f"distill_{name}"
        rows, facts = read_record(place, f"mobivid study {name}", NEEDED)
        return cls(
            rows,
            f"Recorded on {facts['date']} with torch {facts['torch']}: from {facts['start']}, {facts['clips']} test "
            f"captions, {facts['seeds']} seed(s), on {whose_teacher(facts, teacher)}; distances in "
            f"{whose_space(rows)}.",
        )

    def table(self) -> pd.DataFrame:
        """One row a trial and budget: means over seeds, range of the Frechet distance."""
        rows = self.rows.assign(budget=self.rows["TFLOP (counted)"].round(1))
        grouped = rows.groupby(["trial", "budget"], sort=False)
        table = grouped.mean(numeric_only=True).drop(columns=["seed", "low", "high"], errors="ignore")
        table.insert(0, "seeds", grouped.size())
        table["lowest Frechet"], table["highest Frechet"] = grouped["Frechet"].min(), grouped["Frechet"].max()
        trials = table.index.get_level_values("trial")
        if trials.is_unique:  # one budget: a ratio to the regression at the same compute means something
            blank = {"value": np.nan, "low": np.nan, "high": np.nan, "interval": "", "n": np.nan}
            over = [cells(ratio) if ratio else blank for ratio in (self.over(trial) for trial in trials)]
            for column in blank:
                name = f"over '{REGRESSION}'" if column == "value" else column
                table[name] = [found[column] for found in over]
        return table.reset_index().drop(columns="budget")

    def over(self, trial: str, other: str = REGRESSION) -> Interval | None:
        """Frechet distance of `trial` over `other`'s, paired by seed: geometric mean, 95 % interval over seeds.

        Returns:
            (ratio, low, high); None where fewer than two seeds have both.
        """
        logs = [
            rows.drop_duplicates("seed", keep="last").set_index("seed")["Frechet"].map(math.log)
            for rows in (self.rows[self.rows["trial"] == name] for name in (trial, other))
        ]
        differences = (logs[0] - logs[1]).dropna()
        if len(differences) < 2:
            return None
        return over_seeds(np.exp(differences.to_numpy()), logs=True)

    def growth(self) -> str:
        """One sentence: how the Frechet distance of each trial changes from its smallest to its largest budget."""
        told = []
        for trial, rows in self.rows.groupby("trial", sort=False):
            means = rows.groupby(rows["TFLOP (counted)"].round(1))["Frechet"].mean()
            told.append(
                f"{trial} from {means.iloc[0]:.1f} ({means.index[0]:g}) to {means.iloc[-1]:.1f} ({means.index[-1]:g})"
            )
        return f"Frechet distance at the smallest and the largest budget (TFLOP): {'; '.join(told)}. {self.source}"

    def verdict(self, other: str = REGRESSION) -> str:
        """One sentence: which trials have a lower Frechet distance than `other`, beyond chance over seeds."""
        found = {name: self.over(name, other) for name in self.rows["trial"].unique() if name != other}
        found = {name: ratio for name, ratio in found.items() if ratio}
        if not found:
            return f"One seed: no interval over seeds. {self.source}"
        told = ", ".join(f"{name} {r:.2f} [{low:.2f}, {high:.2f}]" for name, (r, low, high) in found.items())
        better = [name for name, (_, _, high) in found.items() if high < 1]
        ending = f"lower beyond chance: {', '.join(better)}" if better else "none is lower beyond chance"
        return f"Frechet distance over that of '{other}', paired by seed: {told}; {ending}. {self.source}"

"""The recorded comparison with pruning libraries, as notebook 04 shows it (no library is needed to read it)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mobivid_core.artifacts import WEIGHTS, find, read_stamp
from mobivid_core.errors import CheckpointError
from mobivid_core.measure.bars import Bar
from mobivid_core.measure.intervals import Interval, over_seeds
from mobivid_core.paths import data_dir
from mobivid_core.studies.records import read_record, whose_teacher

RECORD = "pruning_libraries"
#: What the libraries' arms are called; block influence is a published criterion rather than a package.
LIBRARY_ARMS = ("torch-pruning", "modelopt", "block influence")
SINGLE_LEVEL_ARMS = ("block-only", "head-only", "FFN-only")
#: Our arm of the record.
OURS = "ours: scores with take-over, one queue, refit"
PRUNING_BARS: dict[str, Bar] = {
    "library_p70": Bar("KD loss after recovery over the best library's, 0.7 of the parameters", 0.4, at_least=False),
    "library_paper": Bar("the same at the paper's ratio", 0.6, at_least=False),
    "single_p70": Bar("KD loss after recovery over the best single level's, 0.7", 1.0, at_least=False),
    "single_paper": Bar("the same at the paper's ratio", 1.0, at_least=False),
    "before_p70": Bar("KD loss before recovery over torch-pruning Taylor's, 0.7", 0.1, at_least=False),
    "planning": Bar("planning time over FastNAS's, 0.7", 0.25, at_least=False),
    "minivbench": Bar("MiniVBench total minus that of the library with the highest, the paper's ratio", 0.0),
}
NUMBERS = ["share", "planning seconds", "KD before recovery", "KD recovered", "MiniVBench total"]
COLUMNS = ["arm", "budget", "seed", *NUMBERS]


def record_folder() -> Path:
    """Where recorded benchmarks lie."""
    return data_dir() / "benchmarks"


def teacher_hash(profile: str) -> str:
    """Short hash of the teacher's weights in this profile."""
    return read_stamp(find("teacher", profile).path)["files"][WEIGHTS][:12]


@dataclass(frozen=True)
class Record:
    """A recorded benchmark.

    Attributes:
        rows: One row an arm, budget and seed; `refused` says why an arm could not meet the budget.
        facts: Date, versions, teacher, settings.
    """

    rows: pd.DataFrame
    facts: dict

    @classmethod
    def load(cls, folder: Path | None = None) -> Record:
        """Read the record.

        Raises:
            CheckpointError: It is missing, or not such a record.
        """
        place = (folder or record_folder()) / RECORD
        rows, facts = read_record(place, "mobivid study libraries")
        missing = [c for c in COLUMNS if c not in rows]
        if missing:
            raise CheckpointError(f"{place}.csv lacks the columns {missing}: make it again with the library benchmark")
        return cls(rows, facts)

    def provenance(self, teacher: str) -> str:
        """One sentence: versions, date, and whether it was this teacher."""
        same = whose_teacher(self.facts, teacher)
        libraries = ", ".join(self.facts["libraries"])
        return (
            f"Recorded on {self.facts['date']} with {libraries} and torch {self.facts['torch']}, "
            f"{self.facts['threads']} thread(s), {self.facts['steps']} recovery steps, {self.facts['seeds']} seeds, "
            f"on {same}."
        )

    def measured(self, budget: str) -> pd.DataFrame:
        """Rows of one budget ("0.7" or "paper") that could be had."""
        rows = self.rows[self.rows["budget"].astype(str) == budget]
        return rows[rows["KD recovered"].notna()]

    def table(self) -> pd.DataFrame:
        """One row an arm and budget: means over seeds, the range of the KD loss, or why it was refused."""
        grouped = self.rows.groupby(["budget", "arm"], sort=False)
        table = grouped[NUMBERS].mean()
        table.insert(4, "lowest seed", grouped["KD recovered"].min())
        table.insert(5, "highest seed", grouped["KD recovered"].max())
        if "refused" in self.rows:
            table["refused"] = grouped["refused"].first().fillna("").str.slice(0, 90)
        return table.reset_index()

    def best(self, budget: str, arms: tuple[str, ...], column: str = "KD recovered", highest: bool = False) -> str:
        """The arm of these kinds with the lowest (or highest) mean of a column."""
        rows = self.measured(budget)
        means = rows[rows["arm"].str.startswith(arms)].groupby("arm")[column].mean()
        return str(means.idxmax() if highest else means.idxmin())

    def ratio(self, budget: str, ours: str, other: str, column: str = "KD recovered") -> Interval:
        """ours / other, paired by seed: the geometric mean and its interval over seeds.

        What is the same for every seed, as the seconds of a plan that is made once, has no interval (nan).
        """
        pairs = self._by_seed(budget, ours, column) / self._by_seed(budget, other, column)
        if len(pairs) < 2 or np.ptp(pairs) == 0:
            return Interval(pairs[0], np.nan, np.nan, kind="no interval", over="measurements", n=1)
        return over_seeds(pairs, logs=True)

    def gain(self, budget: str, ours: str, other: str, column: str) -> Interval:
        """ours - other, paired by seed: the mean and its interval over seeds."""
        return over_seeds(self._by_seed(budget, ours, column) - self._by_seed(budget, other, column))

    def _by_seed(self, budget: str, arm: str, column: str) -> np.ndarray:
        rows = self.measured(budget)
        found = rows[rows["arm"] == arm].sort_values("seed")[column].to_numpy(dtype=float)
        if not len(found):
            raise CheckpointError(f"the library benchmark has no arm {arm!r} at budget {budget!r}: make it again")
        return found


def pruning_bars(record: Record, ours: str = OURS) -> dict[str, Interval]:
    """What `PRUNING_BARS` ask for, from the record, over seeds."""
    best = {budget: record.best(budget, LIBRARY_ARMS) for budget in ("0.7", "paper")}
    liked = record.best("paper", LIBRARY_ARMS, "MiniVBench total", highest=True)
    single = {budget: record.best(budget, SINGLE_LEVEL_ARMS) for budget in ("0.7", "paper")}
    return {
        "library_p70": record.ratio("0.7", ours, best["0.7"]),
        "library_paper": record.ratio("paper", ours, best["paper"]),
        "single_p70": record.ratio("0.7", ours, single["0.7"]),
        "single_paper": record.ratio("paper", ours, single["paper"]),
        "before_p70": record.ratio("0.7", ours, "torch-pruning Taylor", "KD before recovery"),
        "planning": record.ratio("0.7", ours, "modelopt FastNAS", "planning seconds"),
        "minivbench": record.gain("paper", ours, liked, "MiniVBench total"),
    }

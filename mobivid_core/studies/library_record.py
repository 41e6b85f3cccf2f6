"""The recorded comparison with pruning libraries, as notebook 04 shows it (reading needs no library)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mobivid_core.errors import CheckpointError
from mobivid_core.measure.bars import Bar
from mobivid_core.measure.intervals import Interval, cells, crossed, over_seeds
from mobivid_core.studies.records import provenance, read_study, record_folder
from mobivid_core.studies.records import teacher_hash as teacher_hash  # the notebooks take it from here

RECORD = "pruning_libraries"
#: KD error of each clip of the final judgement, beside the record: intervals cross seeds with clips.
CLIPS = "pruning_libraries_clips"
#: What the libraries' arms are called; block influence is a published criterion rather than a package.
LIBRARY_ARMS = ("torch-pruning", "modelopt", "block influence")
SINGLE_LEVEL_ARMS = ("block-only", "head-only", "FFN-only")
#: Our arm of the record.
OURS = "ours: scores with take-over, one queue"
#: What a reader of the numbers has to know of how this arm came to stand for ours.
CHOSEN_AFTER = (
    "Chosen after seeing: this arm took the place of another, and the calibration was made four times as large, after "
    "two records missed a bar on the same held-out clips (MiniVBench gain -.021, -.003, then +.013; KD ratio at the "
    "paper's size .58, .48, then .35)."
)
PRUNING_BARS: dict[str, Bar] = {
    "library_p70": Bar("KD loss, ours with refit over the best library's better row, 0.7", 0.4, at_least=False),
    "library_paper": Bar("the same at the paper's ratio", 0.6, at_least=False),
    "refitted_p70": Bar("KD loss, ours over the best library's, both with refit, 0.7", 1.0, at_least=False),
    "refitted_paper": Bar("the same at the paper's ratio", 1.0, at_least=False),
    "plan_p70": Bar("KD loss, ours over the best library's, both without refit, 0.7", 1.0, at_least=False),
    "plan_paper": Bar("the same at the paper's ratio", 1.0, at_least=False),
    "single_p70": Bar("KD loss, ours over the best single level, both with refit, 0.7", 1.0, at_least=False),
    "single_paper": Bar("the same at the paper's ratio", 1.0, at_least=False),
    "before_p70": Bar("KD loss before recovery over torch-pruning Taylor's better row, 0.7", 0.1, at_least=False),
    "planning": Bar("planning time, refit included, over FastNAS's without, 0.7", 0.25, at_least=False),
    "minivbench": Bar("MiniVBench total minus the highest library row's, the paper's ratio", 0.0),
}
NUMBERS = ["share", "planning seconds", "KD before recovery", "KD recovered", "MiniVBench total"]
COLUMNS = ["arm", "budget", "refit", "seed", *NUMBERS]
#: An arm with or without the refit.
Row = tuple[str, bool]


@dataclass(frozen=True)
class Record:
    """A recorded benchmark."""

    rows: pd.DataFrame  # one row an arm, budget and seed; `refused` says why an arm could not meet the budget
    facts: dict  # date, versions, teacher, settings
    errors: dict[tuple, np.ndarray]  # KD error of each clip by (arm, budget, refit, seed)

    @classmethod
    def load(cls, folder: Path | None = None) -> Record:
        """Read the record; a `CheckpointError` says that it is missing, or not such a record."""
        rows, facts = read_study(RECORD, "libraries", COLUMNS, folder)
        rows = rows.assign(budget=rows["budget"].astype(str), refit=rows["refit"].fillna(False).astype(bool))
        file = (folder or record_folder()) / f"{CLIPS}.csv"
        clips = pd.read_csv(file, dtype={"budget": str}) if file.is_file() else pd.DataFrame()
        errors = {
            (r.arm, r.budget, bool(r.refit), int(r.seed)): np.array(r.errors.split(), dtype=float)
            for r in clips.itertuples()
        }
        return cls(rows, facts, errors)

    def disclosed(self) -> str:
        """How this arm came to stand for ours, and what it is judged on: it belongs beside every number."""
        first = self.facts["judged from index"]
        return (
            f"{CHOSEN_AFTER} These rows are judged on clips and captions that no choice has seen (indices from "
            f"{first:,} on)."
        )

    def provenance(self, teacher: str) -> str:
        """One sentence: versions, date, and whether it was this teacher."""
        f = self.facts
        made = f" with {', '.join(f['libraries'])} and torch {f['torch']}, {f['threads']} thread(s)"
        return provenance(f, f"{made}, {f['steps']} recovery steps, {f['seeds']} seeds", teacher)

    def measured(self, budget: str) -> pd.DataFrame:
        """Rows of one budget ("0.7" or "paper") that could be had."""
        rows = self.rows[self.rows["budget"] == budget]
        return rows[rows["KD recovered"].notna()]

    def table(self) -> pd.DataFrame:
        """A row an arm, budget and repair: means over seeds, the interval of the KD loss, or why it was refused."""
        grouped = self.rows.groupby(["budget", "arm", "refit"], sort=False)
        table = grouped[NUMBERS].mean().reset_index()
        spans = [self._loss(*key) for key in zip(table["budget"], table["arm"], table["refit"], strict=True)]
        for place, name in enumerate(("low", "high", "interval", "n"), 7):
            table.insert(place, name, [span[name] for span in spans])
        table["refit"] = ["yes" if repaired else "no" for repaired in table["refit"]]
        if "refused" in self.rows:
            table["refused"] = grouped["refused"].first().fillna("").str.slice(0, 90).to_numpy()
        return table

    def _loss(self, budget: str, arm: str, refit: bool) -> dict:
        rows = self._rows(budget, (arm, refit))
        if len(rows) < 2:
            return {"low": np.nan, "high": np.nan, "interval": "", "n": len(rows)}
        errors = self._errors(budget, (arm, refit))
        return cells(over_seeds(rows["KD recovered"]) if errors is None else crossed(errors))

    def best(
        self, budget: str, arms: tuple[str, ...], column: str = "KD recovered", *, highest: bool = False,
        refit: bool | None = None,
    ) -> Row:  # fmt: skip
        """The arm with the lowest (or highest) mean of a column at budget "0.7" or "paper", and whether refitted.

        `arms` are beginnings of names; `refit` None takes the better of both, in the arms' favour.
        """
        rows = self.measured(budget)
        rows = rows[rows["arm"].str.startswith(arms)]
        rows = rows if refit is None else rows[rows["refit"] == refit]
        if rows.empty:
            raise CheckpointError(f"the library benchmark has no row of {arms} at budget {budget!r}: make it again")
        means = rows.groupby(["arm", "refit"])[column].mean()
        name, repaired = means.idxmax() if highest else means.idxmin()
        return str(name), bool(repaired)

    def ratio(self, budget: str, ours: Row, other: Row, column: str = "KD recovered") -> Interval:
        """ours / other, paired by seed (and by clip, where the record has them): geometric mean and interval.

        What is the same for every seed, as the seconds of a plan that is made once, has no interval (nan).
        """
        errors = [self._errors(budget, row) for row in (ours, other)] if column == "KD recovered" else [None]
        if all(e is not None for e in errors):
            return crossed(errors[0] / errors[1], logs=True)
        pairs = self._by_seed(budget, ours, column) / self._by_seed(budget, other, column)
        if len(pairs) < 2 or np.ptp(pairs) == 0:
            return Interval(pairs[0], np.nan, np.nan, kind="no interval", over="measurements", n=1)
        return over_seeds(pairs, logs=True)

    def gain(self, budget: str, ours: Row, other: Row, column: str) -> Interval:
        """ours - other, paired by seed: the mean and its interval over seeds."""
        return over_seeds(self._by_seed(budget, ours, column) - self._by_seed(budget, other, column))

    def _rows(self, budget: str, row: Row) -> pd.DataFrame:
        rows = self.measured(budget)
        return rows[(rows["arm"] == row[0]) & (rows["refit"] == row[1])].sort_values("seed")

    def _by_seed(self, budget: str, row: Row, column: str) -> np.ndarray:
        found = self._rows(budget, row)[column].to_numpy(dtype=float)
        if not len(found):
            raise CheckpointError(f"the library benchmark has no arm {row[0]!r} at budget {budget!r}: make it again")
        return found

    def _errors(self, budget: str, row: Row) -> np.ndarray | None:
        """(seeds, clips) KD errors; None where the record has none, or one seed."""
        seeds = sorted(self._rows(budget, row)["seed"])
        found = [self.errors.get((row[0], budget, row[1], int(seed))) for seed in seeds]
        return np.stack(found) if len(found) > 1 and all(e is not None for e in found) else None


def pruning_bars(record: Record, teacher: str) -> dict[str, Interval]:
    """What `PRUNING_BARS` ask for; nothing from a record of another teacher."""
    if record.facts["teacher"] != teacher:
        return {}
    found: dict[str, Interval] = {}
    mine, plain = (OURS, True), (OURS, False)
    for budget, label in (("0.7", "p70"), ("paper", "paper")):
        found[f"library_{label}"] = record.ratio(budget, mine, record.best(budget, LIBRARY_ARMS))
        found[f"refitted_{label}"] = record.ratio(budget, mine, record.best(budget, LIBRARY_ARMS, refit=True))
        found[f"plan_{label}"] = record.ratio(budget, plain, record.best(budget, LIBRARY_ARMS, refit=False))
        found[f"single_{label}"] = record.ratio(budget, mine, record.best(budget, SINGLE_LEVEL_ARMS, refit=True))
    taylor = record.best("0.7", ("torch-pruning Taylor",), "KD before recovery")
    liked = record.best("paper", LIBRARY_ARMS, "MiniVBench total", highest=True)
    fastnas = record.best("0.7", ("modelopt FastNAS",), "planning seconds")
    return found | {
        "before_p70": record.ratio("0.7", mine, taylor, "KD before recovery"),
        "planning": record.ratio("0.7", mine, fastnas, "planning seconds"),
        "minivbench": record.gain("paper", mine, liked, "MiniVBench total"),
    }


def libraries_told(record: Record, teacher: str) -> str:
    """One paragraph for a finding: plan and repair apart, how the arm was chosen, where the record comes from."""
    bars = pruning_bars(record, teacher)
    if not bars:
        return (
            "A record of another teacher: no ratio is taken from it, and none of its rows is a headline until "
            f"`mobivid study libraries` has made it again. {record.provenance(teacher)}"
        )
    parts = []
    for budget, label, words in (("0.7", "p70", "0.7 of the parameters"), ("paper", "paper", "the paper's ratio")):
        name, repaired = record.best(budget, LIBRARY_ARMS)
        row = f"{name} {'with' if repaired else 'without'} refit"
        whole, plan = bars[f"library_{label}"], bars[f"plan_{label}"]
        parts.append(
            f"at {words} {whole:.2f} over the best library row ({row}), without refit on either side {plan:.2f}"
        )
    return (
        f"KD loss after equal recovery, ours with refit over the libraries', {'; '.join(parts)}. "
        f"{record.disclosed()} {record.provenance(teacher)}"
    )

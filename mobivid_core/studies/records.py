"""Records of comparisons that take longer than a notebook: a table and a small JSON beside it (`data/benchmarks/`).

A study is a list of trials. `run_trials` makes those that are missing, `save_study` writes the record, `read_record`
is what every notebook reads it with.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mobivid_core.errors import CheckpointError
from mobivid_core.files import write_bytes
from mobivid_core.paths import data_dir

if TYPE_CHECKING:
    import pandas as pd

    from mobivid_core.measure.intervals import Interval


def record_folder() -> Path:
    """Where recorded benchmarks lie."""
    return data_dir() / "benchmarks"


def teacher_hash(profile: str) -> str:
    """Short hash of the teacher's weights in this profile."""
    from mobivid_core.artifacts import WEIGHTS, find, read_stamp

    return read_stamp(find("teacher", profile).path)["files"][WEIGHTS][:12]


def run_trials(trials: Iterable[tuple[str, Callable[[], dict]]], folder: Path, title: str) -> pd.DataFrame:
    """One row a trial; finished ones are kept in `folder` and not made again.

    Args:
        trials: (key of the trial's file, what makes its row).
        folder: Of the finished rows.
        title: Of the progress bar.
    """
    import pandas as pd
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for key, make in tqdm(list(trials), desc=title, ascii=True):
        kept = folder / f"{key}.json"
        if not kept.is_file():
            write_bytes(kept, json.dumps(make()).encode())
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return pd.DataFrame(rows)


def save_study(place: Path, table: pd.DataFrame, profile: str, **settings: object) -> None:
    """Write a study's record with what it was made with, and print the table.

    Args:
        place: As in `write_record`.
        table: One row a trial.
        profile: Whose teacher it was.
        settings: What the command line said.
    """
    import torch

    facts = {"teacher": teacher_hash(profile), "profile": profile, **settings}
    facts |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    write_record(place, table, facts)
    print(table.drop(columns="refused", errors="ignore").to_string(index=False))


def write_record(place: Path, table: pd.DataFrame, facts: dict) -> None:
    """Write `place`.csv (six digits) and `place`.json (with today's date), each in one move."""
    facts = {"date": datetime.date.today().isoformat(), **facts}
    place.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(place.with_suffix(".csv"), table.to_csv(index=False, float_format="%.6g").encode())
    write_bytes(place.with_suffix(".json"), (json.dumps(facts, indent=1) + "\n").encode())


def read_record(place: Path, command: str, columns: Sequence[str] = ()) -> tuple[pd.DataFrame, dict]:
    """(table, facts) of a record.

    Args:
        place: Path without suffix.
        command: What makes the record again.
        columns: Which it must have.

    Raises:
        CheckpointError: Either file is missing or unreadable, or the table lacks a column.
    """
    import pandas as pd

    try:
        rows = pd.read_csv(place.with_suffix(".csv"))
        facts = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"no readable record at {place}.csv ({error}); restore it from the repository, or make it again: {command}"
        ) from error
    if missing := [name for name in columns if name not in rows]:
        raise CheckpointError(f"{place}.csv lacks the columns {', '.join(missing)}; make it again: {command}")
    return rows, facts


def whose_space(rows: pd.DataFrame) -> str:
    """In which features a record's distances were taken; records without a word on it are older than the choice."""
    return rows["distances in"].iloc[0] if "distances in" in rows else "the judge's features"


def whose_teacher(facts: dict, teacher: str) -> str:
    """ "this teacher", or loudly that the record was made with another one."""
    return "this teacher" if facts["teacher"] == teacher else "ANOTHER TEACHER than this run's"


def current(name: str, profile: str, value: Interval | None) -> Interval | None:
    """A number from a record if it was made with this profile's teacher, else None: it would judge other models.

    Args:
        name: The record's, without suffix.
        profile: Name of the profile.
        value: What was read from it.

    Raises:
        CheckpointError: There is no such record.
    """
    _, facts = read_record(record_folder() / name, "mobivid study")
    return value if facts["teacher"] == teacher_hash(profile) else None

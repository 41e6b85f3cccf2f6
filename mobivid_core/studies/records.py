"""The one harness of comparisons that take longer than a notebook, and their one record format (`data/benchmarks/`).

A study is a list of trials. `run_trials` makes those that are missing, `run_study` is the study's command line and
writes the record: a table, and a small JSON beside it that says what it was made with. `read_study` is what notebooks
read it with.
"""

from __future__ import annotations

import datetime
import json
import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from mobivid_core.artifacts import WEIGHTS, find, read_stamp
from mobivid_core.command import CommandParser, above_zero, at_least_one, at_least_zero, run_command
from mobivid_core.errors import CheckpointError
from mobivid_core.files import write_bytes
from mobivid_core.measure.intervals import Interval, cells, over_seeds
from mobivid_core.paths import data_dir
from mobivid_core.profiles import add_profile

#: Options of studies, named as in the record's facts: (flag, type, help).
OPTIONS: dict[str, tuple[str, Callable, str]] = {
    "start": ("--start", str, "what trials start from: a stage or a folder"),
    "tflop": ("--budget", above_zero, "training TFLOP of a trial (10: about 3 minutes on 2 cores)"),
    "steps": ("--steps", at_least_one, "recovery steps of every arm"),
    "updates": ("--updates", at_least_one, "updates of each trial"),
    "clips": ("--clips", at_least_one, "test captions of each score"),
    "trajectories": ("--trajectories", at_least_one, "guided teacher trajectories"),
    "seeds": ("--seeds", at_least_one, "seeds of each trial"),
    "turns": ("--turns", at_least_one, "turns of each batch size"),
    "batches": ("--batches", at_least_one, "clips made at once"),
    "draws": ("--draws", at_least_one, "experiments of each kind"),
    "seed": ("--seed", at_least_zero, "random numbers come from it"),
}


def record_folder() -> Path:
    """Where recorded benchmarks lie."""
    return data_dir() / "benchmarks"


def teacher_hash(profile: str) -> str:
    """Short hash of the teacher's weights in this profile."""
    return read_stamp(find("teacher", profile).path)["files"][WEIGHTS][:12]


def run_study(
    records: Mapping[str, str],
    about: str,
    work: Callable[[Namespace], tuple[pd.DataFrame, dict]],
    defaults: Mapping[str, object],
    arguments: Sequence[str] | None = None,
    *,
    of_teacher: bool = True,
) -> int:
    """Command line of a module's studies: run what is missing, write the record, print the table.

    Args:
        records: {study: name of its record}; where there are several, the first argument says which.
        about: The module's docstring.
        work: From the options (`study`, `out`, `profile` and `defaults`) to the table and facts beside the options.
        defaults: {option of `OPTIONS`: its default}; they become facts of the record.
        of_teacher: Whether the record is of a profile's teacher.
    """
    parser = CommandParser(f"study {next(iter(records))}" if len(records) == 1 else "study", about)
    if len(records) > 1:
        parser.add_argument("study", choices=tuple(records), help="which trials")
    else:
        parser.set_defaults(study=next(iter(records)))
    if of_teacher:
        add_profile(parser)
    for name, default in defaults.items():
        flag, kind, text = OPTIONS[name]
        many = {"nargs": "+"} if isinstance(default, list) else {}
        shown = text if default is None else f"{text} (default: {default})"
        parser.add_argument(flag, dest=name, type=kind, default=default, help=shown, **many)
    parser.add_out("folder of the record", record_folder())

    def record(options: Namespace) -> None:
        table, facts = work(options)
        used = {"teacher": teacher_hash(options.profile), "profile": options.profile} if of_teacher else {}
        used |= {name: getattr(options, name) for name in defaults} | facts
        used |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        write_record(options.out / records[options.study], table, used)
        print(table.drop(columns="refused", errors="ignore").to_string(index=False))

    return run_command(record, parser, arguments)


def run_trials(trials: Iterable[tuple[str, Callable[[], dict]]], folder: Path, title: str) -> pd.DataFrame:
    """One row a trial (key of its file, what makes its row); those kept in `folder` are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for key, make in tqdm(list(trials), desc=title, ascii=True):
        kept = folder / f"{key}.json"
        if not kept.is_file():
            write_bytes(kept, json.dumps(make()).encode())
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return pd.DataFrame(rows)


def write_record(place: Path, table: pd.DataFrame, facts: dict) -> None:
    """Write `place`.csv (six digits) and `place`.json (with today's date), each in one move."""
    facts = {"date": datetime.date.today().isoformat(), **facts}
    place.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(place.with_suffix(".csv"), table.to_csv(index=False, float_format="%.6g").encode())
    write_bytes(place.with_suffix(".json"), (json.dumps(facts, indent=1) + "\n").encode())


def read_record(place: Path, command: str, columns: Sequence[str] = ()) -> tuple[pd.DataFrame, dict]:
    """(table, facts) of a record at a path without suffix, which `command` makes again.

    Raises:
        CheckpointError: Either file is missing or unreadable, or the table lacks one of `columns`.
    """
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


def read_study(
    record: str, study: str, columns: Sequence[str] = (), folder: Path | None = None
) -> tuple[pd.DataFrame, dict]:
    """(table, facts) of what `mobivid study STUDY` recorded; `folder` None is the project's. Errors: `read_record`."""
    return read_record((folder or record_folder()) / record, f"mobivid study {study}", columns)


def provenance(facts: dict, made: str, teacher: str, rows: pd.DataFrame | None = None) -> str:
    """One sentence on where a record comes from: date, how it was `made`, whose it is, and the space of distances.

    `teacher` is `teacher_hash` of this run; of `rows` with distances the feature space is told.
    """
    whose = "this teacher" if facts["teacher"] == teacher else "ANOTHER TEACHER than this run's"
    space = ""
    if rows is not None:
        told = rows["distances in"].iloc[0] if "distances in" in rows else "the judge's features"
        space = f"; distances in {told}"
    return f"Recorded on {facts['date']}{made}, on {whose}{space}."


def over_trial(rows: pd.DataFrame, column: str, ours: str, other: str, *, minus: bool = False) -> Interval:
    """A column of one trial over another's (or `minus` it), paired by seed; of one seed no interval.

    `ours` and `other` are beginnings of the trials' names. The mean of ratios is the geometric one.
    """
    a, b = (rows[rows["trial"].str.startswith(name)].groupby("seed")[column].first() for name in (ours, other))
    pairs = (a - b if minus else a / b).dropna().to_numpy()
    if len(pairs) < 2:
        return Interval(pairs.mean(), math.nan, math.nan, kind="no interval", over="seeds", n=len(pairs))
    return over_seeds(pairs, logs=not minus)


def beside_trial(
    table: pd.DataFrame, rows: pd.DataFrame, column: str, first: str, *, minus: bool = False
) -> pd.DataFrame:
    """A table of trials with `over_trial` of each over the `first`."""
    over = pd.DataFrame([cells(over_trial(rows, column, t, first, minus=minus)) for t in table["trial"]], table.index)
    return pd.concat([table, over.rename(columns={"value": f"{'gain ' * minus}over '{first}'"})], axis=1)


def current(name: str, profile: str, value: Interval | None) -> Interval | None:
    """A value from the record `name` if it was made with this profile's teacher, else None: it judges other models."""
    _, facts = read_record(record_folder() / name, "mobivid study")
    return value if facts["teacher"] == teacher_hash(profile) else None

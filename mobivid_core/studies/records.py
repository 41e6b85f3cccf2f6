"""Records of comparisons that take longer than a notebook: a table and a small JSON beside it (`data/benchmarks/`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mobivid_core.errors import CheckpointError
from mobivid_core.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd


def write_record(place: Path, table: pd.DataFrame, facts: dict) -> None:
    """Write `place`.csv (six digits) and `place`.json, each in one move."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(place.with_suffix(".csv"), table.to_csv(index=False, float_format="%.6g").encode())
    write_bytes(place.with_suffix(".json"), (json.dumps(facts, indent=1) + "\n").encode())


def read_record(place: Path, command: str) -> tuple[pd.DataFrame, dict]:
    """(table, facts) of a record.

    Args:
        place: Path without suffix.
        command: What makes the record again.

    Raises:
        CheckpointError: Either file is missing or unreadable.
    """
    import pandas as pd

    try:
        rows = pd.read_csv(place.with_suffix(".csv"))
        return rows, json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"no readable record at {place}.csv ({error}); restore it from the repository, or make it again: {command}"
        ) from error


def whose_space(rows: pd.DataFrame) -> str:
    """In which features a record's distances were taken; records without a word on it are older than the choice."""
    return rows["distances in"].iloc[0] if "distances in" in rows else "the judge's features"


def whose_teacher(facts: dict, teacher: str) -> str:
    """ "this teacher", or loudly that the record was made with another one."""
    return "this teacher" if facts["teacher"] == teacher else "ANOTHER TEACHER than this run's"

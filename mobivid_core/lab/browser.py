"""Record of the notebooks in a real browser: every widget moved, every console error counted.

The record is made by `tests/browser` (`make test-browser ARGS=--record`), which needs Chromium, so a notebook only
reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobivid_core.studies.records import read_record, record_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

#: Name of the record in `data/benchmarks/`.
RECORD = "browser"
COMMAND = "make test-browser ARGS=--record"
COLUMNS = ("notebook", "widget", "changed", "console_errors")


def browser_record(folder: Path | None = None) -> tuple[pd.DataFrame, dict]:
    """(table, facts) of the last complete run.

    Args:
        folder: Where records lie; `data/benchmarks/` by default.

    Returns:
        One row a step (`notebook`, `widget`, `changed`, `console_errors`: whether the step changed what is shown, and
        how many errors it left on the console), and date, profile and versions.

    Raises:
        CheckpointError: The record is missing, unreadable or lacks a column.
    """
    return read_record((folder or record_folder()) / RECORD, COMMAND, COLUMNS)


def console_errors(table: pd.DataFrame) -> int:
    """Errors on the browser's console over all steps of a record."""
    return int(table["console_errors"].sum())

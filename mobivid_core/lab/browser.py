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
    """The last complete run: a row a step (did it change what is shown, errors on the console), and its facts."""
    return read_record((folder or record_folder()) / RECORD, COMMAND, COLUMNS)


def console_errors(table: pd.DataFrame) -> int:
    """Errors on the browser's console over all steps of a record."""
    return int(table["console_errors"].sum())

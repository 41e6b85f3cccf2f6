"""The record of the browser: read back, counted, and one clear error where it is missing or foreign."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mobivid_core.errors import CheckpointError
from mobivid_core.lab.browser import COLUMNS, RECORD, browser_record, console_errors
from mobivid_core.studies.records import write_record

ROWS = pd.DataFrame(
    {
        "notebook": ["00_start_here", "06_iphone_benchmark", "06_iphone_benchmark"],
        "widget": ["run all cells", "steps", "frames"],
        "changed": [True, False, True],
        "console_errors": [0, 2, 1],
    }
)
assert tuple(ROWS) == COLUMNS


def test_what_was_written_is_read_and_counted(tmp_path: Path) -> None:
    write_record(tmp_path / RECORD, ROWS, {"chromium": "1.2"})
    table, facts = browser_record(tmp_path)
    pd.testing.assert_frame_equal(table, ROWS)
    assert facts.keys() == {"date", "chromium"} and facts["chromium"] == "1.2" and console_errors(table) == 3
    assert table["changed"].dtype == bool


def test_a_missing_record_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="make test-browser ARGS=--record"):
        browser_record(tmp_path)


def test_a_table_without_a_column_is_not_counted_as_clean(tmp_path: Path) -> None:
    write_record(tmp_path / RECORD, ROWS.drop(columns="console_errors"), {})
    with pytest.raises(CheckpointError, match="lacks the columns console_errors"):
        browser_record(tmp_path)

"""The file of headline numbers: one row a number, as text."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobivid_core.files import write_text

if TYPE_CHECKING:
    pass


HEADLINE_COLUMNS = ("id", "value", "low", "high", "unit", "n", "interval", "evidence", "profile", "notebook")


def read_headlines(path: Path) -> list[dict[str, str]]:
    """Rows of a `headlines.csv` as text; none if the file is missing."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_headlines(path: Path, rows: Any) -> None:
    """Write rows, sorted by id."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, HEADLINE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["id"]))
    write_text(path, buffer.getvalue())

"""Headline numbers: what each id means, and the file of their values.

`headline_table.csv` alone names them: id, meaning, own tolerance with the reason for it, and the place on the README's
first screen. Claims refer to the ids in `lab/rules.csv`.
"""

from __future__ import annotations

import csv
import functools
import io
from pathlib import Path
from typing import Any

from mobivid_core.files import write_text

#: Columns of `headlines.csv`.
HEADLINE_COLUMNS = ("id", "value", "low", "high", "unit", "n", "interval", "evidence", "profile", "notebook")


@functools.cache
def headline_table() -> dict[str, dict[str, str]]:
    """Id -> its row: meaning, tolerance ("factor 2"; blank for that of its evidence class), why, readme (its place)."""
    with Path(__file__).with_name("headline_table.csv").open(newline="", encoding="utf-8") as stream:
        return {row["id"]: row for row in csv.DictReader(stream, restval="")}


def number_text(value: float | None) -> str:
    """A headline's number for the file: counts in full, else six digits; "" for None."""
    if value is None:
        return ""
    # Counts are exact. Of the rest six digits: more would differ between thread counts and claim a false precision.
    return str(int(value)) if float(value).is_integer() else f"{float(value):.6g}"


def short(number: float) -> str:
    """A number in three digits, from .1 to 10 in three decimals: ratios near 1 are told apart."""
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    if 0.1 <= abs(number) < 10:
        return f"{number:.3f}".rstrip("0").rstrip(".")
    return f"{number:.3g}"


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

"""Formatting of table cells: digits and blanks that do not change from run to run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def number_text(value: float | None) -> str:
    """A headline's number for the file: counts in full, else six digits; "" for None."""
    if value is None:
        return ""
    # Counts are exact. Of the rest six digits: more would differ between thread counts and claim a false precision.
    return str(int(value)) if float(value).is_integer() else f"{float(value):.6g}"


def csv_text(frame: pd.DataFrame) -> str:
    """A table for the file, six digits."""
    return frame.to_csv(index=shows_index(frame), float_format="%.6g", lineterminator="\n")


def shows_index(frame: pd.DataFrame) -> bool:
    """Whether rows have names that a reader should see."""
    return any(name is not None for name in frame.index.names)


def cell_text(value: Any) -> str:
    """Four significant digits, thousands separated, blanks blank."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        if value == 0 or 1e-3 <= abs(value) < 1e6:
            text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
            return text.replace("-", "\N{MINUS SIGN}")
        return f"{value:.3g}"
    return str(value)


def rendered(frame: pd.DataFrame) -> dict[str, str]:
    """HTML and plain text of a table, without random ids, so that outputs are stable."""
    shown = frame.reset_index() if shows_index(frame) else frame
    text = shown.map(cell_text)
    html = text.to_html(index=False, escape=True, border=0, justify="left")
    return {"text/html": html, "text/plain": text.to_string(index=False)}

"""A table or figure together with its finding, ready to be registered.

Functions of this folder return these, so that a notebook only says `results.table("id", some_table(...))` and the
sentence under a table is tested with the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TableResult:
    """A table and what it shows."""

    frame: pd.DataFrame
    finding: str  # one sentence
    evidence: str = "measured"  # class of its numbers
    paper_item: str | None = None  # the paper's table or figure, or the reviewer's question, that it stands beside


@dataclass(frozen=True)
class FigureResult:
    """A figure and what it shows; the figure is closed when it is registered. Fields as in `TableResult`."""

    fig: Figure
    finding: str
    evidence: str = "measured"
    paper_item: str | None = None
    data: pd.DataFrame | None = None  # the numbers drawn

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
    """A table and what it shows.

    Attributes:
        frame: The table.
        finding: One sentence that says what the table shows.
        evidence: Evidence class of its numbers.
        paper_item: The paper's table or figure, or the reviewer's question, that it stands beside.
    """

    frame: pd.DataFrame
    finding: str
    evidence: str = "measured"
    paper_item: str | None = None


@dataclass(frozen=True)
class FigureResult:
    """A figure and what it shows.

    Attributes:
        fig: The figure; closed when it is registered.
        finding: One sentence that says what the figure shows.
        evidence: Evidence class of its numbers.
        paper_item: The paper's table or figure, or the reviewer's question, that it stands beside.
        data: The numbers drawn.
    """

    fig: Figure
    finding: str
    evidence: str = "measured"
    paper_item: str | None = None
    data: pd.DataFrame | None = None

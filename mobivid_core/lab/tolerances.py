"""Tolerances of `mobivid verify`: how far a number may differ from the committed one.

Runs are bit-identical on one machine at one number of threads. Elsewhere sums are rounded in another order, training
amplifies that, and seconds are another processor's: each kind of number has its own tolerance. Headlines for which the
evidence class does not say enough have theirs in `show/headline_table.csv`, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mobivid_core.show.headlines import headline_table

#: Notebooks whose tables repeat what others measured: their evidence class is that of the arithmetic alone.
RESTATING = ("07_scorecard",)


@dataclass(frozen=True)
class Tolerance:
    """A rule that compares a number with the committed one.

    "exact": equal to five digits (six are recorded). "interval": inside the committed interval, or within `size`
    (relative) of the value. "relative": within `size` of it. "factor": at most `size` times it, at least its `size`-th
    part. "at_most": at most `size` times it; less is better. "points": within `size`, absolute.
    """

    kind: str
    size: float = 0.0

    def holds(self, ours: float, committed: float, low: float | None = None, high: float | None = None) -> bool:
        """Whether `ours` is close enough to the committed value and its interval `low` to `high`."""
        if self.kind == "exact":
            return math.isclose(ours, committed, rel_tol=1e-5, abs_tol=1e-12)
        if self.kind == "factor":
            return committed != 0 and 1 / self.size <= ours / committed <= self.size
        if self.kind == "at_most":
            return ours <= self.size * committed
        if self.kind == "points":
            return abs(ours - committed) <= self.size
        inside = self.kind == "interval" and low is not None and high is not None and low <= ours <= high
        return inside or abs(ours - committed) <= self.size * abs(committed)

    def __str__(self) -> str:
        return {
            "exact": "exact",
            "interval": f"interval or {self.size:.0%}",
            "relative": f"{self.size:.0%}",
            "factor": f"factor {self.size:g}",
            "at_most": f"at most {self.size:g} x",
            "points": f"+- {self.size:g}",
        }[self.kind]


EXACT = Tolerance("exact")
#: Measured numbers with an interval: the interval says what other clips would give, 5 % what another processor may.
WITH_INTERVAL = Tolerance("interval", 0.05)
#: Measured numbers without one, where nothing else is stated; a test allows none of the notebooks' to fall here.
MEASURED = Tolerance("relative", 0.15)


def of_headline(row: dict[str, str]) -> Tolerance:
    """The tolerance of a row of `headlines.csv`: its own, else that of its evidence class."""
    if own := headline_table().get(row["id"], {}).get("tolerance"):
        kind, _, size = own.partition(" ")
        return Tolerance(kind, float(size or 0))
    if row["evidence"] != "measured":
        return EXACT
    return WITH_INTERVAL if row["low"] and row["high"] else MEASURED


def table_is_exact(evidence: str, notebook: str) -> bool:
    """True for a table of counts, arithmetic or quoted numbers; of measured ones only the columns are compared."""
    return evidence != "measured" and notebook not in RESTATING

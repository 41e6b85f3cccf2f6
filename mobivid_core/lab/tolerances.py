"""How far a number may lie from the committed one before `mobivid verify` calls it outside.

Runs are bit-identical on one machine at one number of threads. Elsewhere sums are rounded in another order, training
amplifies that, and seconds are another processor's: each kind of number has its own tolerance, all of them here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Notebooks whose tables repeat what others measured: their evidence class is that of the arithmetic alone.
RESTATING = ("07_scorecard",)


@dataclass(frozen=True)
class Tolerance:
    """A rule that compares a number with the committed one.

    Attributes:
        kind: "exact": equal to five digits (six are recorded).
            "interval": inside the committed interval, or within `size` (relative) of the value.
            "relative": within `size` of the value.
            "factor": at most `size` times it, at least its `size`-th part.
            "at_most": at most `size` times it; less is better.
            "points": within `size`, absolute.
        size: The rule's size; of no use to "exact".
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
#: Measured numbers without one.
MEASURED = Tolerance("relative", 0.15)
#: Ratios of seconds: caches, vector units and whatever else runs shift both sides.
SECONDS = Tolerance("factor", 2)

#: Headlines whose evidence class does not say enough.
EXCEPTIONS: dict[str, Tolerance] = {
    # seconds
    "sens_time_ratio": SECONDS,
    "prune_time_ratio": SECONDS,
    "speedup_distilled": SECONDS,
    "speedup_pruned_distilled": SECONDS,
    "speedup_pruned_distilled_over_equal": SECONDS,
    "cpu_model_worst_ratio": SECONDS,
    "second_runtime_speed_over_torch": SECONDS,
    "train_speedup": Tolerance("factor", 3),  # depends on the processor's bfloat16 units
    "tiled_ffn_gain_cpu": Tolerance("points", 15),  # per cent gained on one layer: noise around zero
    # errors of half and single precision: smaller is as good
    "parity_fp16_max": Tolerance("at_most", 3),
    "parity_fp32_max": Tolerance("at_most", 10),
    "second_runtime_error": Tolerance("at_most", 10),
    # read from the records in data/benchmarks, not measured again
    "prune_kd_over_best_library_p70": EXACT,
    "prune_kd_over_best_library_paper": EXACT,
    "prune_kd_before_over_tp_taylor_p70": EXACT,
    "prune_plan_seconds_over_fastnas": EXACT,
    "prune_minivbench_gain": EXACT,
    "adversarial_over_regression": EXACT,
    "chain_seconds_laptop": EXACT,
    "chain_peak_gb_laptop": EXACT,
    "chain_seconds_smoke": EXACT,
    "browser_console_errors": EXACT,
    # differences close to zero: a relative tolerance means nothing
    "teacher_unseen_gap": Tolerance("points", 0.1),
    "teacher_unseen_wording_gap": Tolerance("points", 0.1),
    "channels_gain_all": Tolerance("points", 0.1),
}


def of_headline(row: dict[str, str]) -> Tolerance:
    """The tolerance of a row of `headlines.csv`."""
    if row["id"] in EXCEPTIONS:
        return EXCEPTIONS[row["id"]]
    if row["evidence"] != "measured":
        return EXACT
    return WITH_INTERVAL if row["low"] and row["high"] else MEASURED


def table_is_exact(evidence: str, notebook: str) -> bool:
    """True for a table of counts, arithmetic or quoted numbers; of measured ones only the columns are compared."""
    return evidence != "measured" and notebook not in RESTATING

"""Checks of exercise notebook 07: rules that give verdicts, and how much weight a verdict bears."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pandas as pd

from mobivid_core.lab.teaching.verdict import Wrong, checked, run

NAN = float("nan")
#: (test, value, low, high, target, digits), the verdict, and the case in words.
TRIALS = (
    (("digits", 1.92, NAN, NAN, 2.0, 1), "contradicted", "a value that rounds to other digits"),
    (("digits", 0.94, NAN, NAN, 0.9, 1), "supported", "a value that rounds to the published digits"),
    (("covers", 19.9, 13.4, 29.4, 15.0, None), "supported", "a target inside the interval"),
    (("covers", 19.9, 16.0, 29.4, 15.0, None), "contradicted", "a target below the interval"),
    (("covers", 8.0, 4.0, 12.0, 15.0, None), "contradicted", "a target above the interval"),
    (("at least", 0.95, 0.91, 0.98, 0.9, None), "supported", "a whole interval above the target"),
    (("at least", 0.931, 0.888, 0.978, 0.9, None), "undecided", "a point above the target, a lower end below it"),
    (("at least", 0.85, 0.8, 0.95, 0.9, None), "undecided", "a point below the target, an upper end above it"),
    (("at least", 0.85, 0.8, 0.89, 0.9, None), "contradicted", "a whole interval below the target"),
    (("at least", 0.95, NAN, NAN, 0.9, None), "undecided", "a number without an interval"),
    (("at most", 0.9, 0.8, 0.99, 1.0, None), "supported", "a whole interval below the limit"),
    (("at most", 0.9, 0.8, 1.1, 1.0, None), "undecided", "an interval that reaches beyond the limit"),
)


@checked
def rules(verdict: Callable[..., str]) -> str:
    """The scorecard's rules: verdict(test, value, low, high, target, digits) -> "supported" and the like."""
    for arguments, right, case in TRIALS:
        found = run(verdict, *arguments)
        if str(found) != right:
            raise Wrong(f"test {arguments[0]!r}: {case} is judged {found!r}. Read the test's sentence again.")
    return "every rule as written. Note which of them look at the interval, and how often it decides nothing."


@checked
def fragile(on_measurement: Collection[str], fragile_claims: Collection[str], claims: pd.DataFrame) -> str:
    """Ids of `claims` (id, evidence, low, high, target) on a measurement, and of those whose interval decides nothing.

    An interval decides nothing that holds the target, or is missing.
    """
    measured = claims[claims["evidence"].isin(["measured", "recorded"])]
    right, found = set(measured["id"]), set(on_measurement)
    unknown = sorted((found | set(fragile_claims)) - set(claims["id"]))
    if unknown:
        raise Wrong(f"{unknown[0]!r} is no claim of the table.")
    derived = found & set(claims.loc[claims["evidence"] == "derived", "id"])
    if derived:
        raise Wrong("`on_measurement`: a number that comes out of a model or arithmetic is in your list.")
    if found - right:
        raise Wrong("`on_measurement`: a claim without any number of ours is in your list.")
    if right - found:
        raise Wrong("`on_measurement`: a claim is missing. Filter the table by its column `evidence`.")
    clear = (measured["low"] >= measured["target"]) | (measured["high"] <= measured["target"])
    weak = set(measured.loc[~clear, "id"])
    chosen = set(fragile_claims)
    blank = set(measured.loc[measured["low"].isna(), "id"])
    if blank - chosen:
        raise Wrong("`fragile_claims`: a missing interval clears nothing: a comparison with NaN is false.")
    if weak - chosen:
        raise Wrong("`fragile_claims`: one more has its target inside the interval.")
    if chosen - weak:
        raise Wrong("`fragile_claims`: one of yours has its whole interval on one side of the target.")
    return "as the table says. A verdict is only as strong as its rule, so the scorecard prints both."

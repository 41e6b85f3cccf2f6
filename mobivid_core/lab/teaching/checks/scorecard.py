"""Checks of exercise notebook 07: rules that give verdicts, and how much weight a verdict bears."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pandas as pd

from mobivid_core.lab.teaching.verdict import checked, run, wrong_if

#: (rule, value, low, high, target, tolerance) and whether the rule holds.
TRIALS = (
    (("value", 1.92, float("nan"), float("nan"), 2.0, 0.1), True, "a value within its relative tolerance"),
    (("value", 0.7, float("nan"), float("nan"), 0.9, 0.1), False, "a value outside its relative tolerance"),
    (("value", 70.0, float("nan"), float("nan"), 75.0, 0.1), True, "a tolerance that is relative to the target"),
    (("covers", 19.9, 13.4, 29.4, 15.0, None), True, "a target inside the interval"),
    (("covers", 19.9, 16.0, 29.4, 15.0, None), False, "a target below the interval"),
    (("covers", 8.0, 4.0, 12.0, 15.0, None), False, "a target above the interval"),
    (("reaches", 9.0, 6.0, 11.0, 10.0, None), True, "a target that the upper end just exceeds"),
    (("reaches", 20.0, 13.0, 29.0, 10.0, None), True, "a target below the whole interval"),
    (("reaches", 7.0, 6.0, 8.0, 10.0, None), False, "a target above the whole interval"),
    (("at_least", 0.931, 0.888, 0.978, 0.9, None), True, "a point above the target whose interval is not"),
    (("at_least", 0.85, 0.8, 0.95, 0.9, None), False, "a point below the target whose interval reaches it"),
)


@checked
def rules(holds: Callable[..., bool]) -> str:
    """The scorecard's rules.

    Args:
        holds: (rule, value, low, high, target, tolerance) -> whether the claim holds.
    """
    for arguments, right, case in TRIALS:
        found = run(holds, *arguments)
        wrong_if(
            bool(found) is not right,
            f"rule {arguments[0]!r}: {case} is judged the wrong way round. Read the rule's sentence in the task again.",
        )
    return "every rule as written. Note which of them look at the interval, and at which end of it."


@checked
def fragile(on_measurement: Collection[str], fragile_claims: Collection[str], claims: pd.DataFrame) -> str:
    """Claims that rest on a measurement, and those whose verdict would fall under a stricter rule.

    Args:
        on_measurement: Ids of the claims whose own number here is `measured`.
        fragile_claims: Ids among them for which the interval's lower end does not clear the target, or is missing.
        claims: Table with columns id, ours, evidence, low, target.
    """
    measured = claims[claims["evidence"].isin(["measured", "recorded"])]
    right, found = set(measured["id"]), set(on_measurement)
    unknown = sorted((found | set(fragile_claims)) - set(claims["id"]))
    wrong_if(unknown, f"{unknown[0] if unknown else ''!r} is no claim of the table.")
    derived = found & set(claims.loc[claims["evidence"] == "derived", "id"])
    wrong_if(derived, "`on_measurement`: a number that comes out of a model or arithmetic is in your list.")
    wrong_if(found - right, "`on_measurement`: a claim without any number of ours is in your list.")
    wrong_if(right - found, "`on_measurement`: a claim is missing. Filter the table by its column `evidence`.")
    weak = set(measured.loc[~(measured["low"] >= measured["target"]), "id"])
    chosen = set(fragile_claims)
    blank = set(measured.loc[measured["low"].isna(), "id"])
    wrong_if(
        blank - chosen,
        "`fragile_claims`: a missing interval clears nothing. A comparison with NaN is false: did you rely on it?",
    )
    wrong_if(weak - chosen, "`fragile_claims`: one more has a point above the target and a lower end below it.")
    wrong_if(chosen - weak, "`fragile_claims`: one of yours clears its target with the whole interval.")
    return (
        "as the table says. A verdict is only as strong as its rule: the scorecard prints the rule "
        "beside it for that reason."
    )

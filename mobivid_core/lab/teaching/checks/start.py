"""Checks of exercise notebook 00: what each saving is worth, and how numbers are known."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import pandas as pd

from mobivid_core.evidence import MEANING
from mobivid_core.lab.teaching.verdict import checked, wrong_if
from mobivid_core.paths import project_root
from mobivid_core.published import claim_value, claims

LEVERS = ("calls", "parameters")


@checked
def savings(fewer_calls: float, cheaper: float, larger_lever: str) -> str:
    """Calls and cost of one clip, server over mobile.

    Args:
        fewer_calls: How many times fewer network calls.
        cheaper: How many times less work in all.
        larger_lever: "calls" or "parameters".
    """
    calls, smaller = claim_value("C24"), claim_value("C04") / claim_value("C13")
    halved = math.isclose(fewer_calls, calls / 2, rel_tol=0.01)
    wrong_if(halved, "`fewer_calls`: you compared steps. How often does the network run in one guided step?")
    wrong_if(
        math.isclose(fewer_calls, 1 / calls, rel_tol=0.01),
        "`fewer_calls` is upside down: divide the server's by the phone's.",
    )
    wrong_if(
        not math.isclose(fewer_calls, calls, rel_tol=0.01), "`fewer_calls`: count steps x (1 or 2) for each model."
    )
    wrong_if(
        math.isclose(cheaper, calls + smaller, rel_tol=0.01),
        "`cheaper`: you added the two savings. Each call that is left is cheaper too: how do factors combine?",
    )
    wrong_if(
        math.isclose(cheaper, calls, rel_tol=0.01),
        "`cheaper`: that is the saving in calls alone; each call got cheaper as well.",
    )
    wrong_if(
        not math.isclose(cheaper, calls * smaller, rel_tol=0.02),
        "`cheaper`: take the cost of a call as proportional to the parameters (claims C04 and C13).",
    )
    wrong_if(larger_lever not in LEVERS, f"`larger_lever` is one of {LEVERS}.")
    wrong_if(
        larger_lever != LEVERS[smaller > calls], "`larger_lever`: compare the two factors that you just multiplied."
    )
    return "two factors, multiplied. Keep their sizes in mind when you read how much of the paper each of them takes."


def recorded_classes(statements: Mapping[str, str]) -> dict[str, str]:
    """Evidence class of each statement, as recorded beside its number.

    Args:
        statements: Statement -> id of a published claim ("C01") or of a headline number of this project.
    """
    headlines = pd.read_csv(project_root() / "figures" / "headlines.csv", index_col="id")["evidence"]
    classes = claims().set_index("id")["evidence"]
    return {words: str(classes.get(key, headlines.get(key))) for words, key in statements.items()}


@checked
def evidence(classes: Mapping[str, str], checkable: Collection[str], statements: Mapping[str, str]) -> str:
    """Evidence class of each statement, and which can be checked here.

    Args:
        classes: Statement -> class, the answer.
        checkable: Statements that a reader can check with this project's code.
        statements: Statement -> id of its number.
    """
    known = recorded_classes(statements)
    missing = sorted(set(known) - set(classes))
    wrong_if(missing, f"`classes`: no class yet for {missing[0] if missing else ''!r}.")
    for statement, found in classes.items():
        wrong_if(found not in MEANING, f"{found!r} is no evidence class: the classes are {', '.join(MEANING)}.")
        wrong_if(statement not in known, f"{statement!r} is not among the statements.")
    off = [statement for statement in known if classes[statement] != known[statement]]
    wrong_if(
        off,
        f"`classes`: {len(off)} of {len(known)} are not as recorded. Look at "
        f"{off[0] if off else ''!r} again: who says so?"
        " Its row names the class.",
    )
    right = {words for words, found in known.items() if found in ("measured", "recorded", "derived")}
    wrong_if(
        set(checkable) - right,
        "`checkable`: for one of yours this project only repeats what somebody wrote. Which classes "
        "come from its own code?",
    )
    wrong_if(right - set(checkable), "`checkable`: one more can be run or calculated again here.")
    return "all as recorded. Only three of these classes let you check a number here, with this project's own code."

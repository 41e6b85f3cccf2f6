"""Checks of exercise notebook 00: what each saving is worth, and how numbers are known."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import pandas as pd

from mobivid_core.evidence import MEANING
from mobivid_core.lab.teaching.verdict import Wrong, checked
from mobivid_core.paths import project_root
from mobivid_core.published import claim_value, claims

LEVERS = ("calls", "parameters")


@checked
def savings(fewer_calls: float, cheaper: float, larger_lever: str) -> str:
    """How many times fewer calls and how many times cheaper one clip is, server over mobile, and by what most."""
    calls, smaller = claim_value("C24"), claim_value("C04") / claim_value("C13")
    halved = math.isclose(fewer_calls, calls / 2, rel_tol=0.01)
    if halved:
        raise Wrong("`fewer_calls`: you compared steps. How often does the network run in one guided step?")
    if math.isclose(fewer_calls, 1 / calls, rel_tol=0.01):
        raise Wrong("`fewer_calls` is upside down: divide the server's by the phone's.")
    if not math.isclose(fewer_calls, calls, rel_tol=0.01):
        raise Wrong("`fewer_calls`: count steps x (1 or 2) for each model.")
    if math.isclose(cheaper, calls + smaller, rel_tol=0.01):
        raise Wrong("`cheaper`: you added the two savings. Each call left is cheaper too: how do factors combine?")
    if math.isclose(cheaper, calls, rel_tol=0.01):
        raise Wrong("`cheaper`: that is the saving in calls alone; each call got cheaper as well.")
    if not math.isclose(cheaper, calls * smaller, rel_tol=0.02):
        raise Wrong("`cheaper`: take the cost of a call as proportional to the parameters (claims C04 and C13).")
    if larger_lever not in LEVERS:
        raise Wrong(f"`larger_lever` is one of {LEVERS}.")
    if larger_lever != LEVERS[smaller > calls]:
        raise Wrong("`larger_lever`: compare the two factors that you just multiplied.")
    return "two factors, multiplied. Keep their sizes in mind when you read how much of the paper each of them takes."


def recorded_classes(statements: Mapping[str, str]) -> dict[str, str]:
    """Evidence class of each statement, whose id is a published claim's ("C01") or a headline's of this project."""
    headlines = pd.read_csv(project_root() / "figures" / "headlines.csv", index_col="id")["evidence"]
    classes = claims().set_index("id")["evidence"]
    return {words: str(classes.get(key, headlines.get(key))) for words, key in statements.items()}


@checked
def evidence(classes: Mapping[str, str], checkable: Collection[str], statements: Mapping[str, str]) -> str:
    """Evidence class of each statement (statement -> id of its number), and which can be checked here."""
    known = recorded_classes(statements)
    missing = sorted(set(known) - set(classes))
    if missing:
        raise Wrong(f"`classes`: no class yet for {missing[0]!r}.")
    for statement, found in classes.items():
        if found not in MEANING:
            raise Wrong(f"{found!r} is no evidence class: the classes are {', '.join(MEANING)}.")
        if statement not in known:
            raise Wrong(f"{statement!r} is not among the statements.")
    off = [statement for statement in known if classes[statement] != known[statement]]
    if off:
        raise Wrong(
            f"`classes`: {len(off)} of {len(known)} are not as recorded. Whose number is {off[0]!r}? Its row says so."
        )
    right = {words for words, found in known.items() if found in ("measured", "recorded", "derived")}
    if set(checkable) - right:
        raise Wrong("`checkable`: for one of yours this project only repeats what somebody wrote. Which class has it?")
    if right - set(checkable):
        raise Wrong("`checkable`: one more can be run or calculated again here.")
    return "all as recorded. Only three of these classes let you check a number here, with this project's own code."

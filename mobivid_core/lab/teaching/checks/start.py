"""Checks of exercise notebook 00: what each saving is worth, and how numbers are known."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from mobivid_core.evidence import MEANING
from mobivid_core.lab.teaching.verdict import Wrong, checked, compare
from mobivid_core.paths import project_root
from mobivid_core.published import claim_value, claims

LEVERS = ("calls", "parameters")


@checked
def savings(fewer_calls: float, cheaper: float, larger_lever: str) -> str:
    """How many times fewer calls and how many times cheaper one clip is, server over mobile, and by what most."""
    calls, smaller = claim_value("C24"), claim_value("C04") / claim_value("C13")
    compare(fewer_calls, calls, {
        calls / 2: "`fewer_calls`: you compared steps. How often does the network run in one guided step?",
        1 / calls: "`fewer_calls` is upside down: divide the server's by the phone's.",
    }, "`fewer_calls`: count steps x (1 or 2) for each model.", rel_tol=0.01)  # fmt: skip
    compare(cheaper, calls * smaller, {
        calls + smaller: "`cheaper`: you added the two savings. Each call left is cheaper too: how do factors combine?",
        calls: "`cheaper`: that is the saving in calls alone; each call got cheaper as well.",
    }, "`cheaper`: take the cost of a call as proportional to the parameters (claims C04 and C13).", 0.02)  # fmt: skip
    if larger_lever not in LEVERS:
        raise Wrong(f"`larger_lever` is one of {LEVERS}.")
    if larger_lever != LEVERS[smaller > calls]:
        raise Wrong("`larger_lever`: compare the two factors that you just multiplied.")
    return "two factors, multiplied. Keep their sizes in mind when you read how much of the paper each of them takes."


@checked
def evidence(classes: Mapping[str, str], checkable: Collection[str], statements: Mapping[str, str]) -> str:
    """Evidence class of each statement (statement -> id of its claim or headline), and which can be checked here."""
    recorded = claims().set_index("id")["evidence"].to_dict()
    recorded |= pd.read_csv(project_root() / "figures" / "headlines.csv", index_col="id")["evidence"].to_dict()
    known = {words: recorded[key] for words, key in statements.items()}
    if missing := sorted(set(known) - set(classes)):
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

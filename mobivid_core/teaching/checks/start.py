"""Checks of notebook 00's exercises: network calls, evidence classes, what few steps and no guidance cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mobivid_core.report.evidence import MEANING
from mobivid_core.teaching.verdict import checked, run, wrong_if

#: Statement -> (its class, a question that leads there without naming it).
_EVIDENCE = {
    "A": ("measured", "who ran the 256 clips?"),
    "B": ("derived", "was anything run, or was it counted from sizes that were put together from other sources?"),
    "C": ("paper", "can you open the place where it is printed?"),
    "D": ("third-party", "did anybody here read it in the PDF, and did the writer referee the paper?"),
    "E": ("review", "who had the PDF and wrote about it in public?"),
    "F": ("assumed", "does any source at all give this width?"),
}


@checked
def calls(network_calls: Callable[[int, float], int]) -> str:
    """`network_calls(steps, guidance)`: how often the transformer runs for one clip."""
    guided, plain = run(network_calls, 40, 3.0), run(network_calls, 4, 1.0)
    wrong_if(guided == 40, "a guided step asks the network twice: with the caption and with what else?")
    wrong_if(plain == 8, "at scale 1 the two predictions cancel to the captioned one: is the second call still needed?")
    wrong_if(guided == 120, "the scale is a factor on a difference of predictions, not a number of calls.")
    wrong_if(guided != 2 * 40, "the guided sampler's count is off: how many calls is one step, and how many steps are there?")
    wrong_if(plain != 4, "the unguided count is off: what does a step without guidance still have to compute?")
    wrong_if(run(network_calls, 7, 1.5) != 14, "your rule fails at a scale of 1.5: at which scales can the second prediction be spared?")
    return "guided steps are paid twice, unguided ones once. The ratio of your two counts is the paper's claim C24."


@checked
def evidence(answer: Mapping[str, str]) -> str:
    """`answer`: letter of a statement -> its evidence class."""
    missing = sorted(set(_EVIDENCE) - set(answer))
    wrong_if(missing, f"no class is given for statement {', '.join(missing)}.")
    unknown = [str(value) for value in answer.values() if value not in MEANING]
    wrong_if(unknown, f"{', '.join(unknown)}: no evidence class; the classes are the words in the table of notebook 00.")
    off = [key for key, (right, _) in _EVIDENCE.items() if answer[key] != right]
    for key in off:
        chosen = f"you chose `{answer[key]}`, which means {MEANING[answer[key]]!r}"
        wrong_if(True, f"{len(off)} of {len(_EVIDENCE)} do not fit. Take {key}: {chosen}. Ask: {_EVIDENCE[key][1]}")
    return "every statement has its class. Notice that only one of the six is an observation made here."


@checked
def debts(distance: Mapping[str, float], larger_debt: str) -> str:
    """`distance`: RMS distance of each cheap clip from the full one; `larger_debt`: "steps" or "guidance"."""
    few, cheap = "4 steps, guided", "4 steps, unguided"
    wrong_if(set(distance) != {few, cheap}, f"`distance` needs the keys {few!r} and {cheap!r}.")
    near, far = float(distance[few]), float(distance[cheap])
    wrong_if(near <= 0 or far <= 0, "a distance of zero or less: did you compare a clip with itself, or leave out the square?")
    wrong_if(far > 1, "frames lie in [0, 1], so an RMS distance above 1 cannot be: did you sum where a mean is meant?")
    wrong_if(near < 1e-4, "that is close to the *mean* of squares or less: was the square root taken?")
    wrong_if(larger_debt not in ("steps", "guidance"), "`larger_debt` is one of the words 'steps' and 'guidance'.")
    added = far - near
    guess = "steps" if near > added else "guidance"
    wrong_if(
        larger_debt != guess,
        "your own distances say otherwise. Compare the distance that is there with guidance still on to what is *added* "
        "once guidance goes as well.",
    )
    return (
        f"few steps alone move the clip by {near:.3f}, leaving guidance out adds {added:.3f}. One prompt and one noise is "
        "an anecdote: notebook 05 measures it over many clips."
    )

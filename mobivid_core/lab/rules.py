"""The rules that turn a claim and a number into a verdict: data (`rules.csv`), written before the numbers.

| class | what its verdict says | counted as tested |
|---|---|---|
| trend | a measurement on the miniature supports or contradicts the direction | yes |
| prediction | the device model's interval agrees or not | no: a model, no phone |
| reconstruction | the size of the reconstructed architecture has the published digits or not | no |
| arithmetic | published numbers agree with each other | no |
| design | a choice that is followed here, or not | no |
| out of reach | what a test would need | no |

A trend is decided by the whole interval: all of it on the claimed side of the target supports, all of it on the other
side contradicts, anything else is undecided, as is a number without an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from mobivid_core import published as book
from mobivid_core.errors import ParameterError

#: Class -> the tests that a rule of it may have.
TESTS = {
    "trend": ("at least", "at most"), "prediction": ("covers", "at least", "at most"), "reconstruction": ("digits",),
    "arithmetic": ("digits",), "design": ("followed", "done differently"), "out of reach": ("",),
}  # fmt: skip
TESTED = "trend"
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
NO_INTERVAL = f"{UNDECIDED}: no interval"
UNANSWERED = "not answered yet"
#: The words of a verdict, by class: (holds, does not).
WORDS = {
    "trend": (SUPPORTED, CONTRADICTED),
    "prediction": ("model agrees", "model disagrees"),
    "reconstruction": ("same published digits", "differs from the published digits"),
    "arithmetic": ("arithmetic holds", "arithmetic fails"),
}
#: An interval whose ends differ by more than this factor hardly tests a prediction.
WIDE = 10


@dataclass(frozen=True)
class Rule:
    """One claim's rule."""

    claim: str  # its id
    kind: str  # its class
    test: str  # one of its class's: of an interval, or "digits" (equal once rounded as published)
    headline: str  # id of the number that is tested; blank where there is none
    formula: str  # target: a number, a claim's id, or arithmetic on both ("C14/C05")
    why: str  # what the number is and why it speaks to the claim; for "out of reach", what is needed

    @property
    def target(self) -> float:
        """The number compared with; nan where there is none."""
        return evaluate(self.formula) if self.formula else math.nan

    def finding(self) -> str:
        """The rule in words."""
        limit = {
            "covers": f"interval holds {self.target:g}",
            "at least": f"whole interval at least {self.target:.4g}",
            "at most": f"whole interval at most {self.target:.4g}",
            "digits": "equal to the published digits",
        }.get(self.test)
        return "; ".join(filter(None, (limit, self.why)))

    def verdict(self, value: float, low: float = math.nan, high: float = math.nan) -> str:
        """What a number with its interval says of the claim; units as published."""
        right, wrong = WORDS[self.kind]
        if self.test == "digits":
            published = str(book.claim(self.claim)["value"])
            decimals = len(published.partition(".")[2])
            return right if round(value, decimals) == float(published) else wrong
        if math.isnan(low) or math.isnan(high):
            return NO_INTERVAL
        if self.test == "covers":
            vague = f": but so would any speed in an interval of a factor of {high / low:.0f}" * (high > WIDE * low)
            return right + vague if low <= self.target <= high else wrong
        least, most = (low, high) if self.test == "at least" else (-high, -low)
        target = self.target if self.test == "at least" else -self.target
        return right if least >= target else wrong if most < target else f"{UNDECIDED}: the interval holds the target"


@cache
def rules() -> dict[str, Rule]:
    """{claim id: its rule}; ParameterError for one of an unknown class or test."""
    table = pd.read_csv(Path(__file__).with_name("rules.csv"), dtype=str, keep_default_na=False)
    rows = [Rule(*row) for row in table.itertuples(index=False)]
    for rule in rows:
        if rule.test not in TESTS.get(rule.kind, ()):
            raise ParameterError(f"rule of {rule.claim}: no test {rule.test!r} in class {rule.kind!r}")
    return {rule.claim: rule for rule in rows}


def evaluate(formula: str) -> float:
    """Arithmetic on numbers and claims' values; ParameterError for anything else, or a claim without one number."""
    values = pd.to_numeric(book.claims().set_index("id")["value"], errors="coerce").dropna()
    try:
        return float(pd.eval(formula, engine="python", local_dict=values.to_dict(), global_dict={}))
    except (NameError, NotImplementedError, SyntaxError, TypeError, ValueError) as error:
        raise ParameterError(f"a target is arithmetic on numbers and claims, got {formula!r}") from error

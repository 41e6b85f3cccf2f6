"""Verdicts follow from their rules; nothing is answered by default."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mobivid_core import published as book
from mobivid_core.lab import scorecard
from mobivid_core.lab.reviews import lead, reviews_table
from mobivid_core.lab.scorecard import CHECKS, CONSISTENT, CONTRADICTED, NOT_HERE, UNANSWERED, Check, judge
from mobivid_core.measure.intervals import Interval
from mobivid_core.show.results import Results


def _row(value: float, low: float = float("nan"), high: float = float("nan"), unit: str = "") -> pd.Series:
    return pd.Series({"value": value, "low": low, "high": high, "unit": unit, "evidence": "derived"})


def test_every_claim_has_a_rule_and_no_rule_lacks_a_claim() -> None:
    assert set(CHECKS) == set(book.claims()["id"])


@pytest.mark.parametrize(
    ("check", "row", "verdict", "ours"),
    [
        (Check("value", "x", tolerance=0.1), _row(1.09), "reproduced", "1.09"),
        (Check("value", "x", tolerance=0.1), _row(1.11), CONTRADICTED, "1.11"),
        (Check("value", "x", tolerance=0.1), _row(0.96e9, unit="parameters"), "reproduced", "0.96"),
        (Check("covers", "x", success=CONSISTENT), _row(2, 0.5, 3), CONSISTENT, "2 [0.5, 3]"),
        (Check("covers", "x"), _row(2, 1.5, 3), CONTRADICTED, "2 [1.5, 3]"),
        (Check("reaches", "x"), _row(0.5, 0.2, 1), "reproduced", "0.5 [0.2, 1]"),
        (Check("reaches", "x"), _row(0.5, 0.2, 0.9), CONTRADICTED, "0.5 [0.2, 0.9]"),
        (Check("covers", "x"), _row(1), CONTRADICTED, "1"),  # without an interval nothing is covered
        (Check("at_least", "x", target=0.9), _row(0.9), "reproduced", "0.9"),
        (Check("at_least", "x", target=0.9), _row(0.89), CONTRADICTED, "0.89"),
        (Check("at_most", "x", target=1.0), _row(1.01), CONTRADICTED, "1.01"),
        (Check("design", success="followed"), None, "followed", ""),
    ],
)
def test_rules(check: Check, row: pd.Series | None, verdict: str, ours: str) -> None:
    assert judge("C00", "1", check, row)[:2] == (verdict, ours)


def test_a_missing_headline_is_never_an_answer() -> None:
    verdict, ours, evidence = judge("C00", "1", Check("at_least", "x", target=0), None)
    assert verdict == f"{UNANSWERED}: headline x has not been recorded" and ours == evidence == ""
    verdict, _, _ = judge("C00", "1", Check("needs", note="a phone"), _row(1))
    assert verdict == f"{NOT_HERE}: needs a phone"


def test_published_arithmetic() -> None:
    frame = scorecard.vbench_identity()
    assert len(frame) >= 5
    # Published to two digits: the two scores may each be off by 0.005, the total too.
    assert frame["difference"].abs().max() <= 0.0101
    assert judge("C24", "20", CHECKS["C24"], None)[:2] == (CONSISTENT, "20.00")
    assert judge("C14", "81.45", CHECKS["C14"], None)[0] == CONSISTENT
    assert judge("C14", "80.00", CHECKS["C14"], None)[0] == CONTRADICTED


def test_a_time_for_all_frames_is_compared_as_a_speed() -> None:
    # 49 frames within 4 s are 12.25 frames/s.
    assert judge("C33", "4", CHECKS["C33"], _row(10, 8, 12.3))[0] == CONSISTENT
    assert judge("C33", "4", CHECKS["C33"], _row(10, 8, 12.2))[0] == CONTRADICTED


def test_an_empty_run_answers_nothing(runs: Path) -> None:
    claims, reviews = scorecard.claims_table("smoke"), reviews_table("smoke")
    assert len(claims) == len(book.claims()) and len(reviews) == len(book.reviews())
    assert claims.loc[claims["id"] == "C01", "verdict"].item().startswith(UNANSWERED)
    counted = scorecard.count_answered(claims, reviews)
    assert counted["with_answer"] == 1  # the code itself
    assert counted["with_verdict"] == len(claims) - sum(c.headline is not None for c in CHECKS.values())


def test_registered_results_answer_what_they_name(runs: Path) -> None:
    results = Results(notebook="04_tri_level_pruning", profile="smoke")
    frame = pd.DataFrame({"a": [1]})
    results.table("arms", frame, finding="Heads alone lose.", evidence="measured", paper_item="Table 4, R1.2")
    speed = Interval(12, 8, 16, kind="80 % prediction", over="published speeds", n=9)
    results.headline("iphone_fps", speed, unit="frames/s", evidence="derived")
    reviews = reviews_table("smoke").set_index("id")
    assert reviews.loc["R1.2", ["shown in", "answer"]].tolist() == ["04: arms", "Heads alone lose. (measured)"]
    items = scorecard.paper_items("smoke").set_index("item")
    assert items.loc["Table 4", "ours beside it"] == "arms" and items.loc["Table 3", "ours beside it"] == ""
    assert pd.isna(items.loc["Figure 1", "unknown"])
    claims = scorecard.claims_table("smoke").set_index("id")
    assert claims.loc["C01", ["verdict", "ours", "scale"]].tolist() == [CONSISTENT, "12 [8, 16]", "paper scale"]


def test_two_sentences_answer_a_question(runs: Path) -> None:
    results, frame = Results(notebook="04_tri_level_pruning", profile="smoke"), pd.DataFrame({"a": [1]})
    for name, finding in (("prune_arms", "B wins by 0.5 (n = 3). It is large."), ("prune_levels", "C follows."),
                          ("prune_libraries", "A wins. Recorded today.")):  # fmt: skip
        results.table(name, frame, finding=finding, evidence="measured")
    row = reviews_table("smoke").set_index("id").loc["R1.2"]
    assert row["answer"] == "A wins. (measured) B wins by 0.5 (n = 3). (measured)"
    assert row["shown in"] == "04: prune_libraries, prune_arms, prune_levels"
    assert lead("At 0.7 of it [0.6, 0.8]. 'both' loses.") == "At 0.7 of it [0.6, 0.8]."


def test_the_pareto_front_keeps_what_nothing_beats() -> None:
    frame = pd.DataFrame({"cost": [1, 2, 3, 2, None], "score": [5, 7, 6, 7, 9]})
    # Row 2 costs more than row 1 and scores less; rows 1 and 3 tie; an unknown cost is never on the front.
    assert scorecard.pareto(frame, "cost", "score").tolist() == [True, True, False, True, False]

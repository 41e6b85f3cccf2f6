"""Verdicts follow from their rules; nothing is answered by default."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from mobivid_core import published as book
from mobivid_core.errors import ParameterError
from mobivid_core.lab import scorecard
from mobivid_core.lab.peers import verdicts_figure
from mobivid_core.lab.reviews import (
    ANSWERS,
    QUESTIONS,
    Found,
    Question,
    answer_of,
    decided,
    decision,
    lead,
    reviews_table,
)
from mobivid_core.lab.rules import CONTRADICTED, SUPPORTED, TESTS, UNANSWERED, UNDECIDED, Rule, evaluate, rules
from mobivid_core.lab.scorecard import NOT_HERE, judge
from mobivid_core.measure.intervals import Interval
from mobivid_core.show.results import Results
from mobivid_core.show.style import PALETTE

NAN = float("nan")


def _row(value: float, low: float = NAN, high: float = NAN, unit: str = "") -> pd.Series:
    return pd.Series({"value": value, "low": low, "high": high, "unit": unit, "evidence": "derived"})


def test_every_claim_has_a_rule_and_no_rule_lacks_a_claim() -> None:
    assert set(rules()) == set(book.claims()["id"])
    assert {rule.kind for rule in rules().values()} == set(TESTS)
    assert all(rule.why for rule in rules().values())
    bounded = [rule for rule in rules().values() if rule.test in ("covers", "at least", "at most")]
    assert all(math.isfinite(rule.target) for rule in bounded)


def test_one_bar_a_quantity() -> None:
    trends = [rule.headline for rule in rules().values() if rule.kind == "trend"]
    assert len(trends) == len(set(trends)) >= 9


@pytest.mark.parametrize(
    ("rule", "number", "verdict"),
    [
        (("trend", "at least", "0.9"), (0.95, 0.9, 1.0), SUPPORTED),
        (("trend", "at least", "0.9"), (0.95, 0.89, 1.0), f"{UNDECIDED}: the interval holds the target"),
        (("trend", "at least", "0.9"), (0.95, NAN, NAN), f"{UNDECIDED}: no interval"),
        (("trend", "at least", "0.9"), (0.85, 0.8, 0.89), CONTRADICTED),
        (("trend", "at most", "1"), (0.9, 0.8, 1.0), SUPPORTED),
        (("trend", "at most", "1"), (0.9, 0.8, 1.01), f"{UNDECIDED}: the interval holds the target"),
        (("trend", "at most", "1"), (1.2, 1.01, 1.3), CONTRADICTED),
        (("prediction", "covers", "1"), (2, 0.5, 3), "model agrees"),
        (
            ("prediction", "covers", "1"),
            (2, 0.2, 3),
            "model agrees: but so would any speed in an interval of a factor of 15",
        ),
        (("prediction", "covers", "1"), (2, 1.5, 3), "model disagrees"),
        (("prediction", "covers", "3.5"), (2, 1.5, 3), "model disagrees"),
        (("prediction", "at least", "1"), (2, 0.5, 3), f"{UNDECIDED}: the interval holds the target"),
    ],
)
def test_the_whole_interval_decides(rule: tuple, number: tuple, verdict: str) -> None:
    kind, test, formula = rule
    assert judge(Rule("C00", kind, test, "x", formula, "why"), _row(*number))[0] == verdict


def test_digits_are_the_published_ones() -> None:
    size = rules()["C13"]  # published as 0.9 billion
    assert judge(size, _row(0.96e9, unit="parameters")) == ("differs from the published digits", "0.96")
    assert judge(size, _row(0.94e9, unit="parameters"))[0] == "same published digits"
    assert judge(rules()["C04"], _row(1.92e9, unit="parameters"))[0] == "differs from the published digits"


def test_a_missing_headline_is_never_an_answer() -> None:
    verdict, ours = judge(Rule("C00", "trend", "at least", "x", "0", "why"), None)
    assert verdict == f"{UNANSWERED}: x has not been recorded" and ours == ""
    assert judge(Rule("C00", "out of reach", "", "", "", "a phone"), _row(1))[0] == f"{NOT_HERE}: needs a phone"


def test_published_arithmetic() -> None:
    frame = scorecard.vbench_identity()
    assert len(frame) >= 5
    # Published to two digits: the two scores may each be off by 0.005, the total too.
    assert frame["difference"].abs().max() <= 0.0101
    assert judge(rules()["C24"], None) == ("arithmetic holds", "20")
    assert judge(rules()["C24"], _row(17.5376, 17.3561, 18.9523))[1] == "20 counted, 17.5 [17.4, 19] measured"
    assert judge(rules()["C14"], None) == ("arithmetic holds", "81.45")
    assert rules()["C14"].verdict(80.0) == "arithmetic fails"


def test_targets_are_arithmetic_on_claims() -> None:
    assert evaluate("C14/C05") == pytest.approx(81.45 / 83.09) and evaluate("C18/C33") == 12.25
    for wrong in ("__import__('os')", "C05 if 1 else 2", "'a'"):
        with pytest.raises(ParameterError, match="arithmetic on numbers and claims"):
            evaluate(wrong)


def test_only_trends_with_an_interval_count_as_tested(runs: Path) -> None:
    claims = scorecard.claims_table("smoke")
    assert len(claims) == len(book.claims()) and scorecard.tested(claims) == 0
    results = Results(notebook="04_tri_level_pruning", profile="smoke")
    results.headline("tiled_ffn_gain_cpu", 4.0)  # no interval
    results.headline("iphone_fps", Interval(12, 8, 16, kind="80 % prediction", over="chips", n=6), evidence="derived")
    assert scorecard.tested(scorecard.claims_table("smoke")) == 0
    ratio = Interval(0.8, 0.7, 0.9, kind="95 % bootstrap", over="pairs of clips", n=9)
    results.headline("prune_kd_over_block_only_paper", ratio)
    claims = scorecard.claims_table("smoke")
    row = claims.set_index("id").loc["C28"]
    assert row[["verdict", "ours", "interval", "n", "scale"]].tolist() == [
        SUPPORTED, "0.8 [0.7, 0.9]", "95 % bootstrap, pairs of clips", "9", "miniature",
    ]  # fmt: skip
    assert scorecard.tested(claims) == 1 and "1 supported, 0 contradicted" in scorecard.finding(claims)
    assert claims.set_index("id").loc["C01", "verdict"] == "model agrees"


def _claims(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "class", "verdict"])


def test_two_claims_on_one_number_are_one_test_without_an_interval_none(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"C1": "x", "C2": "x", "C3": "y", "C4": "z", "C5": "w", "C6": "p"}
    known = {claim: Rule(claim, "trend", "at least", name, "0", "why") for claim, name in numbers.items()}
    monkeypatch.setattr(scorecard, "rules", lambda: known)
    claims = _claims(
        ("C1", "trend", SUPPORTED), ("C2", "trend", SUPPORTED),
        ("C3", "trend", f"{UNDECIDED}: the interval holds the target"), ("C4", "trend", f"{UNDECIDED}: no interval"),
        ("C5", "trend", f"{UNANSWERED}: w has not been recorded"), ("C6", "prediction", "model agrees"),
    )  # fmt: skip
    assert scorecard.tested(claims) == 2  # x and y
    told = scorecard.finding(claims)
    assert "2 supported, 0 contradicted, 1 undecided" in told
    assert told.endswith("1 trend(s) have a number without an interval, 1 have no number yet.")


def test_only_what_was_tested_is_drawn_as_tested() -> None:
    rows = [("trend", SUPPORTED, 2, 1), ("trend", UNANSWERED, 1, 0), ("prediction", "model agrees", 1, 0)]
    figure = verdicts_figure(pd.DataFrame(rows, columns=["class", "verdict", "claims", "tests"]))
    last, middle, first = (to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches)  # drawn from below
    plt.close(figure)
    assert first == PALETTE["blue"].lower() != middle == last


def test_c30_and_c31_say_how_far_they_are_followed() -> None:
    assert "adversarial updates" in scorecard.how_followed("C30")
    assert scorecard.how_followed("C28") == ""


def test_an_empty_run_answers_nothing(runs: Path) -> None:
    reviews = reviews_table("smoke")
    assert len(reviews) == len(book.reviews()) and set(QUESTIONS) == set(reviews["id"])
    assert (~reviews["answer"].str.startswith(UNANSWERED)).sum() == 1  # the code itself
    assert decided(reviews) == 0


def test_registered_results_answer_what_they_name(runs: Path) -> None:
    results = Results(notebook="03_sensitivity_analysis", profile="smoke")
    frame = pd.DataFrame({"a": [1]})
    results.table("arms", frame, finding="Heads alone lose.", evidence="measured", paper_item="Table 4, R1.5")
    reviews = reviews_table("smoke").set_index("id")
    assert reviews.loc["R1.5", ["shown in", "answer"]].tolist() == ["03: arms", "Heads alone lose. (measured)"]
    items = scorecard.paper_items("smoke").set_index("item")
    assert items.loc["Table 4", "ours beside it"] == "arms" and items.loc["Table 3", "ours beside it"] == ""
    assert pd.isna(items.loc["Figure 1", "unknown"])


def test_two_sentences_answer_a_question(runs: Path) -> None:
    results, frame = Results(notebook="03_sensitivity_analysis", profile="smoke"), pd.DataFrame({"a": [1]})
    for name, finding in (("sens_estimators", "B wins by 0.5 (n = 3). It is large."), ("other", "C follows."),
                          ("sens_stability", "A wins. Recorded today.")):  # fmt: skip
        results.table(name, frame, finding=finding, evidence="measured")
    row = reviews_table("smoke").set_index("id").loc["R5.2"]
    assert row["answer"] == "A wins. (measured) B wins by 0.5 (n = 3). (measured)"
    assert row["shown in"] == "03: sens_stability, sens_estimators"
    assert lead("At 0.7 of it [0.6, 0.8]. 'both' loses.") == "At 0.7 of it [0.6, 0.8]."


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.9, 0.99, "decided"), (1.01, 1.1, "decided"), (0.9, 1.1, "open"), (NAN, NAN, "")]
)
def test_an_interval_decides_where_it_leaves_the_turning_value_out(low: float, high: float, word: str) -> None:
    numbers = pd.DataFrame({"value": [1.0], "low": [low], "high": [high]}, index=["x"])
    assert decision(Question((), "x", 1.0), Found(Path(), {}, numbers)).split(":")[0] == word
    assert decision(Question((), "y", 1.0), Found(Path(), {}, numbers)) == ""
    assert decided(pd.DataFrame({"decided": [f"{word}: x", ""]})) == (word == "decided")


def _found(tmp_path: Path, **tables: pd.DataFrame) -> Found:
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    return Found(tmp_path, {name: {"finding": "F."} for name in tables}, pd.DataFrame(columns=["value", "low", "high"]))


def test_the_stack_is_told_with_its_quality(tmp_path: Path) -> None:
    places = [(True, False, False), (False, True, False), (False, False, True), (True, True, False),
              (True, False, True), (True, True, True)]  # fmt: skip
    table = pd.DataFrame(places, columns=["compressed", "pruned", "distilled"])
    table["cheaper"] = [11.4, 2.1, 20, 23, 228, 464]
    table["accuracy / teacher (miniature)"] = [1, NAN, NAN, 0.25, 0.929, 0.375]
    told = ANSWERS["R3.1"](_found(tmp_path, scorecard_stacking=table))
    assert "distillation 20.0x at 0.93" in told and "pruning 2.1x at 0.25" in told
    assert "464x and keep 0.375" in told and "would be 0.23" in told


def test_costs_are_those_of_every_round(tmp_path: Path) -> None:
    rows = pd.DataFrame({"student": ["live", "a (shipped)", "a (shipped)"], "TFLOP (counted)": [1, 10, 30],
                         "seconds": [60, 600, 1800]})  # fmt: skip
    assert "a 40 TFLOP, 40 minutes" in ANSWERS["R4.1"](_found(tmp_path, distill_cost=rows))


def test_tiling_says_whether_a_gpu_was_measured(tmp_path: Path) -> None:
    rows = pd.DataFrame({"device": ["cpu", "cpu"], "tiles": [1, 2], "seconds": [1.0, 0.9], "peak_mib": [63, 42]})
    gain = pd.DataFrame({"value": [3.5], "low": [-11.0], "high": [27.0]}, index=["tiled_ffn_gain_cpu"])
    told = ANSWERS["R4.3"](replace(_found(tmp_path, tiled_ffn=rows), numbers=gain))
    assert "0.90 of the plain FFN's time and 42 of 63 MiB" in told and "No server GPU was measured" in told
    assert "chosen on other repeats, it changes the speed by 3.50 [-11.00, 27.00] %" in told
    server = rows.assign(device="a GPU")
    told = ANSWERS["R4.3"](replace(_found(tmp_path, tiled_ffn=pd.concat([rows, server])), numbers=gain))
    assert "on a GPU" in told and "No server GPU" not in told


def test_half_of_the_results_is_no_answer(tmp_path: Path) -> None:
    floors = pd.DataFrame({"levels": ["heads", "ffn"], "floor, B": [1.0, 1.1]})
    assert answer_of("R1.2", _found(tmp_path, prune_budget_floors=floors), []) == ""

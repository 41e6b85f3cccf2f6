"""Claim by claim: the paper's value, ours, and a verdict from a stated rule.

Published values come from data/paper, ours from `headlines.csv` and the manifest of registered results, the rules from
`rules.csv` (`rules.py` says how each class is judged). A claim whose headline has not been recorded is "not answered
yet"; it is never guessed.
"""

from __future__ import annotations

import math
import re

import pandas as pd

from mobivid_core import published as book
from mobivid_core.artifacts import shipped_path
from mobivid_core.files import read_json
from mobivid_core.lab.rules import (
    CONTRADICTED,
    NO_INTERVAL,
    SUPPORTED,
    TESTED,
    UNANSWERED,
    UNDECIDED,
    Rule,
    evaluate,
    rules,
)
from mobivid_core.paths import runs_dir
from mobivid_core.show.headlines import short
from mobivid_core.show.results import headlines, manifest

NOT_HERE = "not testable here"
#: What the numbers behind a verdict were measured on, by class of rule.
SCALES = {"trend": "miniature", "prediction": "paper scale, model", "reconstruction": "paper scale, counted"}
#: Stages that ship four-step students.
_STUDENTS = ("student", "distilled")


def claims_table(profile: str) -> pd.DataFrame:
    """Every claim of the paper, one row each, with ours beside it (from the profile's headlines) and the verdict."""
    rows = headlines(profile).set_index("id")
    table = []
    for claim in book.claims().itertuples():
        rule = rules()[claim.id]
        row = rows.loc[rule.headline] if rule.headline in rows.index else None
        verdict, ours = judge(rule, row)
        known = bool(ours) and row is not None
        table.append(
            {
                "id": claim.id,
                "claim": claim.claim,
                "published": claim.value,
                "unit": claim.unit,
                "evidence (published)": claim.evidence,
                "class": rule.kind,
                "ours": ours,
                "interval": _text(row, "interval") if known else "",
                "n": _text(row, "n") if known else "",
                "evidence (ours)": str(row["evidence"]) if known else "derived" if ours else "",
                "scale": SCALES.get(rule.kind, "") if ours else "",
                "rule": rule.finding() + how_followed(claim.id),
                "verdict": verdict,
                "notebook": _made_by(row, rule),
            }
        )
    return pd.DataFrame(table)


def judge(rule: Rule, row: pd.Series | None) -> tuple[str, str]:
    """The verdict of a rule on its headline (None: not recorded), and our value as text with its interval."""
    if rule.kind == "out of reach":
        return f"{NOT_HERE}: needs {rule.why}", ""
    if rule.kind == "design":
        return rule.test, ""
    if rule.kind == "arithmetic":
        ours = evaluate(rule.formula)
        beside = "" if row is None else f" counted, {_with_ends(*map(float, row[['value', 'low', 'high']]))} measured"
        return rule.verdict(ours), f"{ours:.4g}{beside}"
    if row is None:
        return f"{UNANSWERED}: {rule.headline} has not been recorded", ""
    billions = 1e9 if row["unit"] in ("parameters", "params") else 1  # as published
    ours, low, high = (float(row[c]) / billions for c in ("value", "low", "high"))
    return rule.verdict(ours, low, high), _with_ends(ours, low, high)


def _with_ends(value: float, low: float, high: float) -> str:
    """A number with its interval, where it has one."""
    return short(value) + ("" if math.isnan(low) or math.isnan(high) else f" [{short(low)}, {short(high)}]")


def _text(row: pd.Series, column: str) -> str:
    """A cell of a headline as text; blank where the number has no interval."""
    value = row.get(column)
    return "" if value is None or pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def how_followed(claim_id: str) -> str:
    """How far the shipped students were trained as C30 and C31 say: read from the cards beside their weights."""
    if claim_id not in ("C30", "C31"):
        return ""
    told = []
    for stage in _STUDENTS:
        card = read_json(shipped_path(stage) / "distilled.json", {})
        recipes = (*card.get("earlier", []), card.get("recipe", {}))
        rounds = [recipe for recipe in recipes if recipe.get("adversarial")]
        updates = sum(recipe["adversarial"]["steps"] for recipe in rounds)
        mixed = f" with {rounds[-1]['synthetic_share']:.0%} synthetic clips" if rounds and claim_id == "C31" else ""
        told.append(f"{stage} {updates:,} adversarial updates{mixed}")
    return f"; followed in the shipped students so far: {', '.join(told)}"


def _made_by(row: pd.Series | None, rule: Rule) -> str:
    if row is not None:
        return str(row["notebook"])
    numbers = re.search(r"\((\d\d(?:, \d\d)*)\)", rule.why) if rule.kind == "design" else None
    return numbers.group(1) if numbers else ""


def vbench_identity() -> pd.DataFrame:
    """Published rows with all three VBench scores, and the total that the others imply: (4 quality + semantic) / 5."""
    frame = book.published().dropna(subset=["vbench_total", "vbench_quality", "vbench_semantic"])
    implied = (4 * frame["vbench_quality"] + frame["vbench_semantic"]) / 5
    columns = ["system", "vbench_quality", "vbench_semantic", "vbench_total", "evidence"]
    difference = (implied - frame["vbench_total"]).round(4)
    return frame[columns].assign(implied_total=implied, difference=difference).reset_index(drop=True)


def paper_items(profile: str) -> pd.DataFrame:
    """Each table and figure of the paper, what is known of it, and our results beside it. Blanks stay blank."""
    entries = sorted(manifest(profile).values(), key=lambda entry: entry["id"])
    frame = book.tables()
    ours = [", ".join(e["id"] for e in entries if names_item(e["paper_item"], item)) for item in frame["item"]]
    return frame.assign(**{"ours beside it": ours})


def names_item(paper_item: str | None, wanted: str) -> bool:
    """True if a comma-separated `paper_item` names `wanted`."""
    return wanted in [part.strip() for part in re.split(r"[,;]", paper_item or "")]


def costs(profile: str) -> pd.DataFrame:
    """Seconds and peak memory of each notebook, as last run at `profile`; empty before the first run."""
    rows = [read_json(path) for path in sorted((runs_dir(profile) / "stamps").glob("*.json"))]
    columns = {"notebook": str, "seconds": float, "peak GB": float}
    values = [(row["notebook"], row["seconds"], row["peak_mb"] / 1000) for row in rows]
    return pd.DataFrame(values, columns=list(columns)).astype(columns)


def count_verdicts(claims: pd.DataFrame) -> pd.DataFrame:
    """Rows of `claims_table` by class and verdict, counted; two claims that rest on one number are one test.

    `tests` are distinct numbers with an interval; 0 where the class tests nothing. A number without an interval is
    undecided for another reason than one whose interval holds the target: it has a row of its own.
    """
    decidable = ~claims["verdict"].str.startswith((UNANSWERED, NO_INTERVAL))
    numbers = claims["id"].map(lambda claim: rules()[claim].headline).where(decidable)
    words = claims["verdict"].str.split(":").str[0].mask(claims["verdict"] == NO_INTERVAL, NO_INTERVAL)
    frame = claims.assign(verdict=words, number=numbers)
    rows = [
        (kind, verdict, len(part), part["number"].nunique() if kind == TESTED else 0)
        for (kind, verdict), part in frame.groupby(["class", "verdict"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["class", "verdict", "claims", "tests"])


def finding(claims: pd.DataFrame) -> str:
    """One sentence for a finding: how many claims were tested, how they came out, what the others are."""
    counts = count_verdicts(claims)
    trends = counts[counts["class"] == TESTED]
    by = trends.set_index("verdict")["claims"]
    others = counts[counts["class"] != TESTED].groupby("class", sort=False)["claims"].sum()
    listed = ", ".join(f"{count} {kind}" for kind, count in others.items())
    return (
        f"Of {len(claims)} claims {tested(claims)} were tested on the miniature: {by.get(SUPPORTED, 0)} supported, "
        f"{by.get(CONTRADICTED, 0)} contradicted, {by.get(UNDECIDED, 0)} undecided. Not tested: {listed}; "
        f"{by.get(NO_INTERVAL, 0)} trend(s) have a number without an interval, {by.get(UNANSWERED, 0)} have no number "
        "yet."
    )


def tested(claims: pd.DataFrame) -> int:
    """How many numbers of this project, each with its interval, were held against a claim; trends only."""
    return int(count_verdicts(claims)["tests"].sum())

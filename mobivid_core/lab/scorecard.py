"""Claim by claim: what the paper says, what was found here, and a verdict that follows from a stated rule.

Nothing is typed: published values come from data/paper, ours from `headlines.csv` and the manifest of
registered results. The rule of each claim (which headline, what scale, what tolerance) is the table `CHECKS`.
A claim whose headline has not been recorded is "not answered yet"; it is never guessed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mobivid_core import published as book
from mobivid_core.files import read_json
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.show.results import headlines, manifest

REPRODUCED = "reproduced"
TREND = "trend reproduced"
CONSISTENT = "consistent"
FOLLOWED = "followed: a design choice, not a result"
DIFFERENT = "done differently here"
CONTRADICTED = "contradicted"
NOT_HERE = "not testable here"
UNANSWERED = "not answered yet"

#: What the numbers behind a verdict were measured on.
PAPER_SCALE, MINIATURE = "paper scale", "miniature"


@dataclass(frozen=True)
class Check:
    """The rule that turns a claim and a headline into a verdict.

    Attributes:
        kind: "value": within `tolerance` (relative) of the published value.
            "covers": `target` lies in the headline's interval.
            "reaches": the interval's upper end is at least `target`.
            "at_least", "at_most": a trend, ours against `target`.
            "design": a choice, followed or not.
            "needs": what a test would need.
            "arithmetic": follows from other published numbers.
        headline: Id of the headline number it looks at.
        scale: What that number was measured on.
        target: Number compared with; None takes the published value.
        tolerance: Relative tolerance of "value".
        note: Why this rule; for "needs", what is needed; for "design", where it is followed.
        success: Verdict if the rule holds.
    """

    kind: str
    headline: str | None = None
    scale: str = ""
    target: float | None = None
    tolerance: float | None = None
    note: str = ""
    success: str = REPRODUCED


def _needs(what: str) -> Check:
    return Check("needs", note=what)


def _followed(where: str) -> Check:
    return Check("design", note=where, success=FOLLOWED)


_WEIGHTS = "the authors' weights or training set, and VBench"
_OTHERS = "another system's weights; quoted from the paper for comparison"

CHECKS: dict[str, Check] = {
    "C01": Check("covers", "iphone_fps", PAPER_SCALE, note="device model", success=CONSISTENT),
    "C02": Check("reaches", "iphone_fps", PAPER_SCALE, note="device model", success=CONSISTENT),
    "C03": Check(
        "at_least", "student_accuracy_over_teacher", MINIATURE, target=0.9,
        note="four steps keep nine tenths of the teacher's caption accuracy", success=TREND,
    ),
    "C04": Check("value", "server_params", PAPER_SCALE, tolerance=0.1, note="reconstruction", success=CONSISTENT),
    "C05": _needs(_WEIGHTS),
    "C06": _needs("the weights' exact architecture and an A100; notebook 06 gives the arithmetic of the implied rate"),
    "C07": _needs(_OTHERS),
    "C08": _needs(_OTHERS),
    "C09": _needs(_OTHERS),
    "C10": _needs(_OTHERS),
    "C11": _needs(_OTHERS),
    "C12": _needs(_OTHERS),
    "C13": Check("value", "mobile_params", PAPER_SCALE, tolerance=0.1, note="reconstruction", success=CONSISTENT),
    "C14": Check(
        "arithmetic", note="(4 x quality + semantic) / 5 from C15 and C16", tolerance=0.01, success=CONSISTENT
    ),
    "C15": _needs(_WEIGHTS),
    "C16": _needs(_WEIGHTS),
    "C17": _followed("paper-scale counts and packages use this size (06)"),
    "C18": _followed("paper-scale counts and packages use 49 frames (06); miniature clips have 17"),
    "C19": _followed("the main VAE compresses 8x32x32; others beside it (01)"),
    "C20": _followed("the miniature is cut in the same ratio (04)"),
    "C21": _followed("the miniature is cut in the same ratio (04)"),
    "C22": _followed("the miniature is cut in the same ratio (04)"),
    "C23": _followed("40 guided teacher steps, 4 student steps (02, 05)"),
    "C24": Check("arithmetic", note="steps before x 2 / steps after, from C23", tolerance=0.01, success=CONSISTENT),
    "C25": _needs("the phone's Neural Engine; on a processor the gain of one layer is within noise (06)"),
    "C26": _followed("fp16 Core ML packages are converted and checked on Linux (06)"),
    "C27": Check("design", note="frozen MiniLM behind the same interface: its weights come in a package",
                 success=DIFFERENT),
    "C28": _followed("block, head and FFN levels in one plan (03, 04)"),
    "C29": Check("design", note="one ranking per parameter saved, with a closed-form refit (04)", success=DIFFERENT),
    "C30": _followed("heads on frozen teacher features (05)"),
    "C31": _followed("real and teacher-made clips are mixed (05)"),
    "C32": _needs("people to ask"),
    "C33": Check(
        "reaches", "iphone_fps", PAPER_SCALE, note="device model; frames (C18) over seconds", success=CONSISTENT
    ),
}  # fmt: skip


def claims_table(profile: str) -> pd.DataFrame:
    """Every claim of the paper with ours beside it and the verdict.

    Args:
        profile: Name of the profile whose headlines are read.

    Returns:
        One row a claim: id, claim, published, unit, published evidence, ours, our evidence, scale, rule, verdict.

    Raises:
        ProfileError: Unknown profile.
    """
    rows = headlines(profile).set_index("id")
    table = []
    for claim in book.claims().itertuples():
        check = CHECKS.get(claim.id, Check("needs", note="a rule: none is written for this claim"))
        row = rows.loc[check.headline] if check.headline in rows.index else None
        verdict, ours, evidence = judge(claim.id, claim.value, check, row)
        table.append(
            {
                "id": claim.id,
                "claim": claim.claim,
                "published": claim.value,
                "unit": claim.unit,
                "evidence (published)": claim.evidence,
                "ours": ours,
                "evidence (ours)": evidence,
                "scale": check.scale if ours else "",
                "rule": rule(check),
                "verdict": verdict,
                "notebook": _made_by(row, check),
            }
        )
    return pd.DataFrame(table)


def judge(claim_id: str, value: object, check: Check, row: pd.Series | None) -> tuple[str, str, str]:
    """The verdict on one claim.

    Args:
        claim_id: The claim's id, for arithmetic on other claims.
        value: Its published value.
        check: Its rule.
        row: The headline the rule looks at, None if it has not been recorded.

    Returns:
        Verdict, our value as text, our evidence class (both blank if there is none).
    """
    if check.kind == "needs":
        return f"{NOT_HERE}: needs {check.note}", "", ""
    if check.kind == "design":
        return check.success, "", ""
    if check.kind == "arithmetic":
        ours = _arithmetic(claim_id)
        close = math.isclose(ours, float(value), rel_tol=0, abs_tol=check.tolerance)
        return (check.success if close else CONTRADICTED), f"{ours:.2f}", "derived"
    if row is None:
        return f"{UNANSWERED}: headline {check.headline} has not been recorded", "", ""
    ours, low, high = (_like_published(float(row[c]), row["unit"]) for c in ("value", "low", "high"))
    target = _target(claim_id, value, check)
    holds = {
        "value": lambda: abs(ours - target) <= check.tolerance * abs(target),
        "covers": lambda: low <= target <= high,
        "reaches": lambda: high >= target,
        "at_least": lambda: ours >= target,
        "at_most": lambda: ours <= target,
    }[check.kind]()
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:.3g}, {high:.3g}]"
    return (check.success if holds else CONTRADICTED), f"{ours:.3g}{interval}", str(row["evidence"])


def rule(check: Check) -> str:
    """A rule in words, with its tolerance."""
    limits = {
        "value": lambda: f"within {check.tolerance:.0%} of the published value",
        "covers": lambda: "interval covers the published value",
        "reaches": lambda: "interval reaches the published value",
        "at_least": lambda: f"at least {check.target:g}",
        "at_most": lambda: f"at most {check.target:g}",
        "arithmetic": lambda: f"within {check.tolerance:g}",
    }
    limit = limits[check.kind]() if check.kind in limits else ""
    if check.kind == "needs":
        return ""
    return "; ".join(filter(None, (limit, check.note)))


def _like_published(value: float, unit: object) -> float:
    """Parameters are published in billions."""
    return value / 1e9 if unit in ("parameters", "params") else value


def _target(claim_id: str, value: object, check: Check) -> float:
    if claim_id == "C33":  # a time for all frames; ours is a speed
        return book.claim_value("C18") / float(value)
    return float(value) if check.target is None else check.target


def _arithmetic(claim_id: str) -> float:
    if claim_id == "C14":
        return vbench_total(book.claim_value("C15"), book.claim_value("C16"))
    before, after = map(int, re.findall(r"\d+", book.claim("C23")["value"]))
    return before * 2 / after  # guidance evaluates the teacher twice a step


def _made_by(row: pd.Series | None, check: Check) -> str:
    if row is not None:
        return str(row["notebook"])
    numbers = re.search(r"\((\d\d(?:, \d\d)*)\)", check.note) if check.kind == "design" else None
    return numbers.group(1) if numbers else ""


def vbench_total(quality: float, semantic: float) -> float:
    """VBench's total score: (4 x quality + semantic) / 5."""
    return (4 * quality + semantic) / 5


def vbench_identity() -> pd.DataFrame:
    """Published rows with all three VBench scores, and the total that the other two imply."""
    frame = book.published().dropna(subset=["vbench_total", "vbench_quality", "vbench_semantic"])
    implied = vbench_total(frame["vbench_quality"], frame["vbench_semantic"])
    columns = ["system", "vbench_quality", "vbench_semantic", "vbench_total", "evidence"]
    difference = (implied - frame["vbench_total"]).round(4)
    return frame[columns].assign(implied_total=implied, difference=difference).reset_index(drop=True)


def paper_items(profile: str) -> pd.DataFrame:
    """Each table and figure of the paper, what is known of it, and our results beside it. Blanks stay blank.

    Raises:
        ProfileError: Unknown profile.
    """
    entries = sorted(manifest(profile).values(), key=lambda entry: entry["id"])
    frame = book.tables()
    ours = [", ".join(e["id"] for e in entries if names_item(e["paper_item"], item)) for item in frame["item"]]
    return frame.assign(**{"ours beside it": ours})


def names_item(paper_item: str | None, wanted: str) -> bool:
    """True if a comma-separated `paper_item` names `wanted`."""
    return wanted in [part.strip() for part in re.split(r"[,;]", paper_item or "")]


def pareto(frame: pd.DataFrame, cost: str, score: str) -> pd.Series:
    """True for rows that no other row beats in both a lower cost and a higher score; unknown cells are never on it."""
    known = frame.dropna(subset=[cost, score])
    front = pd.Series(False, index=frame.index)
    for index, row in known.iterrows():
        better = (known[cost] <= row[cost]) & (known[score] >= row[score])
        strictly = (known[cost] < row[cost]) | (known[score] > row[score])
        front[index] = not (better & strictly).any()
    return front


def costs(profile: str) -> pd.DataFrame:
    """Seconds and peak memory of each notebook, as last run at `profile`; empty before the first run.

    Raises:
        ProfileError: Unknown profile.
    """
    stamps = sorted((runs_dir(get_profile(profile).name) / "stamps").glob("*.json"))
    rows = [read_json(path) for path in stamps]
    columns = {"notebook": str, "seconds": float, "peak GB": float}
    values = [(row["notebook"], row["seconds"], row["peak_mb"] / 1000) for row in rows]
    return pd.DataFrame(values, columns=list(columns)).astype(columns)


def count_answered(claims: pd.DataFrame, reviews: pd.DataFrame) -> dict[str, Any]:
    """How many claims have a verdict and how many questions an answer."""
    verdicts = claims["verdict"]
    return {
        "claims": len(claims),
        "with_verdict": int((~verdicts.str.startswith(UNANSWERED)).sum()),
        "tested": int((~verdicts.str.startswith((UNANSWERED, NOT_HERE, FOLLOWED, DIFFERENT))).sum()),
        "reviews": len(reviews),
        "with_answer": int((~reviews["answer"].str.startswith(UNANSWERED)).sum()),
    }

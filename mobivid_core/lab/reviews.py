"""Reviewers' questions, each answered in two sentences from registered results.

A question counts as decided only where an experiment has a number with an interval, and the interval leaves out the
value at which the answer would turn (`QUESTIONS`). The other answers say what was found; they decide nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mobivid_core import published as book
from mobivid_core.lab.answers import ANSWERS, Found, MissingResult
from mobivid_core.lab.rules import UNANSWERED
from mobivid_core.lab.scorecard import names_item


@dataclass(frozen=True)
class Question:
    """How one question is answered."""

    results: tuple[str, ...]  # behind the answer, the most telling first
    headline: str = ""  # the number whose interval can decide
    turns_at: float = 0.0  # value at which the answer would be another one


QUESTIONS: dict[str, Question] = {
    "R1.1": Question(("vae_motion_by_ratio", "vae_ratio_sweep", "vae_motion_cost"), "channels_gain_all", 0.0),
    "R1.2": Question(
        ("prune_budget_floors", "prune_arms", "prune_levels", "prune_libraries"), "prune_kd_over_block_only_paper", 1.0
    ),
    "R1.3": Question(("distill_quality",)),
    "R1.4": Question(("distill_heads", "distill_arms"), "discriminator_teacher_over_random", 1.0),
    "R1.5": Question(("sens_motion", "sens_temporal_heads")),
    "R2.1": Question(("device_predictions", "device_rates", "cpu_model")),
    "R2.2": Question(("vae_subscores", "vae_psnr_needed", "vae_one_denoiser_each", "vae_psnr_and_generation")),
    "R2.3": Question(()),
    "R3.1": Question(("scorecard_stacking",)),
    "R3.2": Question(("device_predictions", "device_rates")),
    "R3.3": Question(("distill_image_to_video",)),
    "R4.1": Question(("distill_cost", "distill_compute")),
    "R4.2": Question(("stage_seconds", "device_rates")),
    "R4.3": Question(("tiled_ffn", "tiled_working_set")),
    "R4.4": Question(("distill_share",), "mixed_data_over_either", 1.0),
    "R5.1": Question(("prune_libraries", "scorecard_peers", "prune_pareto"), "prune_kd_over_best_library_paper", 1.0),
    "R5.2": Question(("sens_stability", "sens_estimators"), "sens_rho_units", 0.8),
}
#: Findings that speak in an answer without a function of its own.
SPEAKING = 2


def reviews_table(profile: str) -> pd.DataFrame:
    """Every reviewer question with two sentences of answer and the registered results behind them.

    Sentences come from `answers.ANSWERS`; of a question without one, from the leading sentences of the findings of
    its results, or of results whose `paper_item` names it, as in `paper_item="Table 4, R1.2"`.

    Returns:
        One row a question: id, ask, answer (or what is still to do), decided (by which number, "open" where its
        interval holds the turning value, blank where no number can), shown in (notebook and results).
    """
    found = Found.of(profile)
    rows = []
    for review_id, ask, experiment, _ in book.reviews().itertuples(index=False):
        question = QUESTIONS[review_id]
        naming = sorted(name for name, e in found.entries.items() if names_item(e["paper_item"], review_id))
        names = dict.fromkeys([*(name for name in question.results if name in found.entries), *naming])
        answering = [{"id": name, **found.entries[name]} for name in names]
        answer = answer_of(review_id, found, answering) or f"{UNANSWERED}. Planned: {experiment}"
        decided = "" if answer.startswith(UNANSWERED) else decision(question, found)
        rows.append({"id": review_id, "ask": ask, "answer": answer, "decided": decided, "shown in": _places(answering)})
    return pd.DataFrame(rows)


def decision(question: Question, found: Found) -> str:
    """ "decided" or "open" with the number and its interval; blank where no number with an interval was recorded."""
    row = found.headline(question.headline)
    if row is None or pd.isna(row["low"]) or pd.isna(row["high"]):
        return ""
    inside = row["low"] <= question.turns_at <= row["high"]
    value = f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}] against {question.turns_at:g}"
    return f"{'open' if inside else 'decided'}: {question.headline} {value}"


def decided(reviews: pd.DataFrame) -> int:
    """Questions that a number's whole interval decides."""
    return int(reviews["decided"].str.startswith("decided").sum())


def answer_of(review_id: str, found: Found, answering: list[dict[str, Any]]) -> str:
    """The answer; blank where results that it needs have not been registered."""
    if review_id not in ANSWERS:
        return " ".join(f"{lead(e['finding'])} ({e['evidence']})" for e in answering[:SPEAKING])
    try:
        return ANSWERS[review_id](found)
    except MissingResult:
        return ""


def lead(finding: str) -> str:
    """The first sentence of a finding."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z'])", finding, maxsplit=1)[0]


def _places(answering: list[dict[str, Any]]) -> str:
    """E.g. "04: prune_arms, prune_libraries"."""
    by_notebook: dict[str, list[str]] = {}
    for entry in answering:
        by_notebook.setdefault(entry["notebook"][:2], []).append(entry["id"])
    return "; ".join(f"{number}: {', '.join(names)}" for number, names in by_notebook.items())

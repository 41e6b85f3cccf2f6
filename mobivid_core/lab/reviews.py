"""What the paper's reviewers asked, each with the two sentences that answer it and the results they come from."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from mobivid_core import published as book
from mobivid_core.lab.scorecard import UNANSWERED, names_item
from mobivid_core.show.results import manifest

#: The results whose findings answer a question, the most telling first; two speak, the others are listed.
ANSWERED_BY: dict[str, tuple[str, ...]] = {
    "R1.1": ("vae_motion_by_ratio", "vae_ratio_sweep", "vae_motion_cost"),
    "R1.2": ("prune_libraries", "prune_arms", "prune_levels", "prune_matched_arms"),
    "R1.3": ("distill_quality", "teacher_minivbench"),
    "R1.4": ("distill_heads", "distill_arms"),
    "R1.5": ("sens_motion", "sens_temporal_heads"),
    "R2.1": ("device_rates", "cpu_model", "device_predictions"),
    "R2.2": ("vae_subscores", "vae_psnr_needed", "vae_one_denoiser_each", "vae_psnr_and_generation"),
    "R3.1": ("scorecard_stacking",),
    "R3.2": ("device_predictions", "device_rates"),
    "R3.3": ("distill_image_to_video",),
    "R4.1": ("distill_cost", "distill_compute", "scorecard_costs"),
    "R4.2": ("stage_seconds", "device_rates"),
    "R4.3": ("tiled_ffn", "tiled_working_set"),
    "R4.4": ("distill_share",),
    "R5.1": ("scorecard_peers", "prune_pareto", "vae_quality_and_cost"),
    "R5.2": ("sens_stability", "sens_estimators"),
}
#: Findings that speak in an answer.
SPEAKING = 2


def reviews_table(profile: str) -> pd.DataFrame:
    """Every reviewer question with two sentences of answer and the registered results behind them.

    The sentences are the leading ones of the findings of `ANSWERED_BY`, else of results whose `paper_item` names the
    question, as in `paper_item="Table 4, R1.2"`.

    Returns:
        One row a question: id, ask, answer (or what is still to do), and shown in (notebook and results).

    Raises:
        ProfileError: Unknown profile.
    """
    entries = manifest(profile)
    rows = []
    for review_id, ask, experiment, _ in book.reviews().itertuples(index=False):
        answering = _answering(review_id, entries)
        if answering:
            answer = " ".join(f"{lead(e['finding'])} ({e['evidence']})" for e in answering[:SPEAKING])
        elif review_id == "R2.3":
            answer = "The code of this project; none was released with the paper."
        else:
            answer = f"{UNANSWERED}. Planned: {experiment}"
        rows.append({"id": review_id, "ask": ask, "answer": answer, "shown in": _places(answering)})
    return pd.DataFrame(rows)


def lead(finding: str) -> str:
    """The first sentence of a finding."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z'])", finding, maxsplit=1)[0]


def _answering(review_id: str, entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Registered results that answer a question, the ones of `ANSWERED_BY` first."""
    listed = [name for name in ANSWERED_BY.get(review_id, ()) if name in entries]
    naming = sorted(name for name, e in entries.items() if names_item(e["paper_item"], review_id))
    return [{"id": name, **entries[name]} for name in dict.fromkeys([*listed, *naming])]


def _places(answering: list[dict[str, Any]]) -> str:
    """E.g. "04: prune_arms, prune_libraries"."""
    by_notebook: dict[str, list[str]] = {}
    for entry in answering:
        by_notebook.setdefault(entry["notebook"][:2], []).append(entry["id"])
    return "; ".join(f"{number}: {', '.join(names)}" for number, names in by_notebook.items())

"""Reviewers' questions, each answered in two sentences from registered results.

A question counts as decided only where an experiment has a number with an interval, and the interval leaves out the
value at which the answer would turn (`QUESTIONS`). The other answers say what was found; they decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mobivid_core import published as book
from mobivid_core.lab.rules import UNANSWERED
from mobivid_core.lab.scorecard import names_item
from mobivid_core.paths import figures_dir
from mobivid_core.show.results import headlines, manifest
from mobivid_core.studies.discriminator_study import BOTH, REAL, SCRATCH, TEACHERS


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
    "R1.4": Question(("distill_heads", "distill_arms"), "discriminator_gain_teacher_over_random"),
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
    "R4.4": Question(("distill_share",), "mixed_data_gain_over_either"),
    "R5.1": Question(("prune_libraries", "scorecard_peers", "prune_pareto"), "prune_kd_over_best_library_paper", 1.0),
    "R5.2": Question(("sens_stability", "sens_estimators"), "sens_rho_units", 0.8),
}
#: Findings that speak in an answer without a function of its own.
SPEAKING = 2


class MissingResult(LookupError):
    """A table that an answer needs has not been registered: it is not given yet, rather than from half of them."""


@dataclass(frozen=True)
class Found:
    """Registered results of a profile: the folder of their files, their manifest, headline rows by id."""

    folder: Path
    entries: Mapping[str, dict[str, Any]]
    numbers: pd.DataFrame

    def table(self, name: str) -> pd.DataFrame:
        """A registered table."""
        file = self.folder / f"{name}.csv"
        if name not in self.entries or not file.is_file():
            raise MissingResult(name)
        return pd.read_csv(file)

    def headline(self, name: str) -> pd.Series | None:
        """A headline's row; None if it has not been recorded."""
        return self.numbers.loc[name] if name in self.numbers.index else None

    def number(self, name: str) -> str:
        """A headline with its interval as text."""
        row = self.headline(name)
        if row is None:
            raise MissingResult(name)
        ends = "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
        return f"{row['value']:.2f}{ends}"


def single_levels(found: Found) -> str:
    """R1.2: head-only and FFN-only arms."""
    floors = found.table("prune_budget_floors").set_index("levels")["floor, B"]
    table = found.table("prune_arms").set_index("arm")
    arms, sizes = table["KD recovered"], table.loc[table.index.str.startswith("mild: "), "share"]
    mild = {name.removeprefix("mild: "): value for name, value in arms.items() if name.startswith("mild: ")}
    told = ", ".join(f"{name} {value:.3f}" for name, value in sorted(mild.items(), key=lambda item: item[1]))
    return (
        f"Head-only and FFN-only pruning cannot reach the mobile size: without any head {floors['heads']:.2f} B "
        f"parameters are left, without any FFN neuron {floors['ffn']:.2f} B. At {sizes.min():.0%} to "
        f"{sizes.max():.0%} of the parameters, where each level can compete, the KD losses after the same refit and "
        f"recovery are {told}; at the mobile size the tri-level cut has "
        f"{found.number('prune_kd_over_block_only_paper')} of block-only's."
    )


def motion(found: Found) -> str:
    """R1.3: dynamic degree and motion smoothness."""
    rows = found.table("distill_quality")
    rows = rows[rows["clips"].str.contains("teacher|student")].drop_duplicates("clips")
    told = "; ".join(f"{r.clips} {r.motion_smoothness:.3f} and {r.dynamic_degree:.2f}" for r in rows.itertuples())
    effects = found.table("teacher_damage_effects")
    noise = effects[(effects["measure"] == "dynamic_degree") & effects["damage"].str.contains("noise")]
    most = noise.loc[noise["change"].idxmax()] if len(noise) and noise["change"].notna().any() else None
    under = "" if most is None else f" (by {most['change']:+.2f} under {most['damage']})"
    return (
        f"Motion smoothness and dynamic degree: {told}. Dynamic degree changes under noise on real clips{under}, so a "
        "high value says little by itself; the share of clips with the asked motion is in the same table."
    )


def discriminator(found: Found) -> str:
    """R1.4: teacher features against features from scratch."""
    trials = found.table("distill_heads").set_index("trial")[BOTH]
    others = trials.drop([trials.index[0], SCRATCH])
    return (
        "Held-out pairs of clips told apart after equal training of the heads: on teacher features "
        f"{trials.iloc[0]:.0%}, on the same network with random weights {trials[SCRATCH]:.0%}, a gain of "
        f"{found.number('discriminator_gain_teacher_over_random')}; the other designs reach {others.min():.0%} to "
        f"{others.max():.0%}. The student stands still: what it would learn from each was not measured."
    )


def devices(found: Found) -> str:
    """R2.1: more devices."""
    rows = found.table("device_predictions").dropna(subset=["frames/s"])
    twice = rows["device"].duplicated(keep=False)
    names = rows["device"].where(~twice, rows["device"] + " " + rows["chip"])
    told = ", ".join(f"{name} {fps:.0f}" for name, fps in zip(names, rows["frames/s"], strict=True))
    error = found.headline("device_loo_workload_error")
    missed = "" if error is None else f" and misses a workload left out of the fit by {error['value']:.0%} (median)"
    return (
        f"Predicted frames/s: {told}. No phone was at hand: the model is fitted to published speeds of two "
        f"image U-Nets and one image transformer{missed}."
    )


def stack(found: Found) -> str:
    """R3.1: each part alone and all together."""
    rows = found.table("scorecard_stacking").set_index(["compressed", "pruned", "distilled"])
    accuracy, cheaper = rows["accuracy / teacher (miniature)"], rows["cheaper"]
    pruned, distilled = accuracy[True, True, False], accuracy[True, False, True]
    every, product = (True, True, True), pruned * distilled
    return (
        f"Alone each part saves work (FLOPs at paper scale; accuracy on the miniature after short, equal trainings): "
        f"compression {cheaper[True, False, False]:.1f}x, pruning {cheaper[False, True, False]:.1f}x at {pruned:.2f} "
        f"of the teacher's accuracy, distillation {cheaper[False, False, True]:.1f}x at {distilled:.2f} of the "
        f"teacher's accuracy. Stacked they save {cheaper[every]:.0f}x and keep {accuracy[every]:.3f} of the teacher's "
        f"accuracy, where the product of pruning's and distillation's alone would be {product:.2f}."
    )


def compute(found: Found) -> str:
    """R4.1: how long distillation trains."""
    rows = found.table("distill_cost")
    shipped = rows[rows["student"] != "live"]
    totals = (shipped if len(shipped) else rows).groupby("student", sort=False)[["TFLOP (counted)", "seconds"]].sum()
    told = "; ".join(
        f"{name.removesuffix(' (shipped)')} {r['TFLOP (counted)']:,.0f} TFLOP, {r['seconds'] / 60:.0f} minutes"
        for name, r in totals.iterrows()
    )
    growth = found.entries.get("distill_compute", {}).get("finding", "")
    return f"Training of the students, all rounds together: {told} on this project's processor. {growth}".strip()


def tiling(found: Found) -> str:
    """R4.3: is the memory bottleneck the phone's alone."""
    rows = found.table("tiled_ffn")
    told = []
    for device, part in rows.groupby("device", sort=False):
        plain, best = part[part["tiles"] == 1].iloc[0], part.loc[part["seconds"].idxmin()]
        where = "this processor" if device == "cpu" else device
        told.append(
            f"on {where} the best of {len(part)} tilings ({best['tiles']:.0f}) "
            f"takes {best['seconds'] / plain['seconds']:.2f} of the plain FFN's time and {best['peak_mib']:.0f} of "
            f"{plain['peak_mib']:.0f} MiB"
        )
    servers = [d for d in rows["device"].unique() if d != "cpu"]
    other = "" if servers else (
        " No server GPU was measured: a GPU's library already tiles a matrix product in its own cache, so a gain there "
        "is not to be expected from this experiment, nor excluded by it."
    )  # fmt: skip
    gain = found.number("tiled_ffn_gain_cpu")
    return f"Tiling the FFN: {'; '.join(told)}; chosen on other repeats, it changes the speed by {gain} %.{other}"


def shares(found: Found) -> str:
    """R4.4: the share of synthetic clips."""
    rows = found.table("distill_share").set_index("trial")
    told = ", ".join(
        f"{name.removesuffix(' synthetic')} {row[REAL]:.0%} and {row[TEACHERS]:.0%}" for name, row in rows.iterrows()
    )
    return (
        f"Held-out pairs in which the student's clip is told from a real one and from the teacher's, by share of "
        f"synthetic clips in the discriminator's real batch: {told}. Half and half over the better of either alone, "
        f"mean of both kinds: {found.number('mixed_data_gain_over_either')}."
    )


#: Question -> what writes its answer.
ANSWERS: dict[str, Callable[[Found], str]] = {
    "R1.2": single_levels,
    "R1.3": motion,
    "R1.4": discriminator,
    "R2.1": devices,
    "R2.3": lambda found: "The code of this project, all of it; none was released with the paper.",
    "R3.1": stack,
    "R4.1": compute,
    "R4.3": tiling,
    "R4.4": shares,
}


def reviews_table(profile: str) -> pd.DataFrame:
    """Every reviewer question with two sentences of answer and the registered results behind them.

    Sentences come from `ANSWERS`; of a question without one, from the leading sentences of the findings of its results,
    or of results whose `paper_item` names it, as in `paper_item="Table 4, R1.2"`. One row a question: id, ask, answer
    (or what is still to do), decided (by which number, "open" where its interval holds the turning value, blank where
    no number can), shown in (notebook and results).
    """
    found = Found(figures_dir(profile), manifest(profile), headlines(profile).set_index("id"))
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

"""Choosing among ways of sampling on validation captions: all on a few clips, the best of them on many.

Nothing that is reported was chosen on the captions that it is reported on. A full cross of settings on hundreds of
captions would cost more than the teacher's whole evaluation, so a coarse round drops the settings that are clearly
worse, and only finalists are measured on all captions (successive halving with one halving).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import pandas as pd

from mobivid_core.errors import ParameterError
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.minivbench import Reference

#: Captions of the coarse round.
COARSE = 64


@dataclass(frozen=True)
class Screened:
    """Evaluations of the finalists on all captions, and of every setting on the coarse ones (empty without a round)."""

    final: dict[Hashable, Evaluation]
    coarse: dict[Hashable, Evaluation]


def check_validation(evaluator: Evaluator) -> None:
    """Refuse to choose on captions that results are reported on."""
    if evaluator.split != "val":
        raise ParameterError(
            f"settings are chosen on validation captions, this evaluator holds {evaluator.split!r}: prepare one with "
            'split="val"'
        )


def screen(
    settings: Mapping[Hashable, Callable[[int], Evaluation]],
    reference: Reference,
    *,
    n: int,
    coarse: int = COARSE,
    finalists: int = 4,
) -> Screened:
    """Measure all settings on `coarse` captions and the best `finalists` of them (`rank`) on n.

    `settings` gives each one's evaluation on the first so many captions. With `coarse` from n up, all settings are
    finalists and there is one round.
    """
    if not settings or finalists < 1:
        raise ParameterError(f"a screening needs a setting and a finalist, got {len(settings)} and {finalists}")
    if coarse >= n or len(settings) <= finalists:
        return Screened({name: run(n) for name, run in settings.items()}, {})
    first = {name: run(coarse) for name, run in settings.items()}
    kept = rank(first, reference)[:finalists]
    return Screened({name: settings[name](n) for name in kept}, first)


def rank(runs: Mapping[Hashable, Evaluation], reference: Reference) -> list[Hashable]:
    """Settings from best to worst: those whose accuracy is within chance of the best one by distance, then the rest.

    Accuracy saturates and a distance does not: among settings that meet their captions equally well, the one closest
    to real clips (in the trusted space) is better. The rest follow by accuracy.
    """
    best = max(run.scores["all_together"] for run in runs.values())
    close = [name for name, run in runs.items() if run.scores.values["all_together"][2] >= best]
    rest = [name for name in runs if name not in close]
    return [
        *sorted(close, key=lambda name: runs[name].scores[reference.space.real]),
        *sorted(rest, key=lambda name: -runs[name].scores["all_together"]),
    ]


def screened_table(found: Screened, reference: Reference, columns: Mapping[Hashable, Mapping]) -> pd.DataFrame:
    """A row a setting: finalists on all captions first, then those that the coarse round dropped.

    After each setting's cells of `columns`: n, all_together and distance (from real clips, trusted space) with `_low`
    and `_high`, colour, round ("final" or "coarse").
    """
    rows = []
    dropped = {name: run for name, run in found.coarse.items() if name not in found.final}
    for stage, runs in (("final", found.final), ("coarse", dropped)):
        for name in rank(runs, reference) if runs else ():
            scores = runs[name].scores
            row: dict[str, object] = {**columns[name], "n": scores.n}
            for title, key in (("all_together", "all_together"), ("distance", reference.space.real)):
                row[title], row[f"{title}_low"], row[f"{title}_high"] = scores.values[key]
            rows.append(row | {"colour": scores["color"], "round": stage})
    return pd.DataFrame(rows)

"""Distances in every feature space, above the codec's own: where the spaces disagree, what each of them rewards.

No space is neutral. The judge's features know captions and look through blur and noise; those of an ImageNet network
see texture and know no motion. A ratio of raw distances is pulled towards 1 by what the codec alone is off by: here it
is taken off both sides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from mobivid_core.measure.comparison import above_floor
from mobivid_core.measure.minivbench import SPACES, ClipMeasures, Reference, distance_features

if TYPE_CHECKING:
    from mobivid_core.measure.generation import Evaluation


@dataclass(frozen=True)
class InSpaces:
    """Generators in both spaces."""

    table: pd.DataFrame  # a row a generator and space, from `in_spaces`
    disagreements: tuple[tuple[str, str], ...]  # pairs whose order differs: nearer in the first space, in the second
    rewards: tuple[str, ...]  # one clause a space: what its distance reacts to, and what it misses

    def finding(self) -> str:
        """A finding: how many orders differ, and what each space rewards."""
        titles = [space.title for space in SPACES.values()]
        parts = [f"{a} is nearer in {titles[0]}, {b} in {titles[1]}" for a, b in self.disagreements[:2]]
        pairs = len(self.table) // len(titles)
        order = f"the spaces order {len(self.disagreements)} of {pairs * (pairs - 1) // 2} pairs differently"
        return f"Above the codec's distance, {'; '.join([order, *parts])}. {' '.join(self.rewards)}"


def in_spaces(
    runs: Mapping[str, Evaluation],
    teacher: str,
    codec: ClipMeasures,
    reference: Reference,
    trials: pd.DataFrame | None = None,
    *,
    seed: int = 0,
) -> InSpaces:
    """Every generator's distance above the codec's, over that of the row `teacher`, in every space that was measured.

    `runs` are {title: clips of the same captions, measured with `independent=True`}, `codec` measures of their real
    clips through the VAE; `trials` from `trials.effects`, None where the profile's numbers mean nothing.
    """
    rows, order = [], {}
    for name, space in SPACES.items():
        there = replace(reference, space=space)
        for title, run in runs.items():
            if distance_features(run.measures, there, space.reconstruction) is None:
                continue
            found = above_floor(run.measures, runs[teacher].measures, codec, there, seed=seed)
            interval = f"{found.kind}, {found.over}"
            rows.append((title, space.title, run.scores[space.reconstruction], *found, interval, found.n))
            order.setdefault(name, {})[title] = found.value
    columns = ["clips", "distances in", "distance", "above the codec / teacher's", "low", "high", "interval", "n"]
    return InSpaces(pd.DataFrame(rows, columns=columns), _disagreements(order), _rewards(trials))


def _disagreements(order: Mapping[str, Mapping[str, float]]) -> tuple[tuple[str, str], ...]:
    """Pairs that the first space puts the one way round and the second the other."""
    if len(order) < 2:
        return ()
    first, second = list(order.values())[:2]
    pairs = itertools.combinations((name for name in first if name in second), 2)
    differ = ((a, b) for a, b in pairs if (first[a] - first[b]) * (second[a] - second[b]) < 0)
    return tuple((a, b) if first[a] < first[b] else (b, a) for a, b in differ)


def _rewards(trials: pd.DataFrame | None) -> tuple[str, ...]:
    if trials is None:
        return ()
    told = []
    for space in SPACES.values():
        rows = trials[trials["measure"] == space.real]
        strongest = rows.loc[rows["in_noise"].abs().sort_values(ascending=False).index[:3], "damage"]
        missed = rows.loc[(rows["expected"] != "") & (rows["seen"].astype(str) != "True"), "damage"]
        text = f"{space.title[0].upper()}{space.title[1:]} react most to {', '.join(strongest)}"
        told.append(f"{text}{' and miss ' + ', '.join(missed) if len(missed) else ''}.")
    return tuple(told)

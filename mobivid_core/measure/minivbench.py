"""MiniVBench: VBench's names, formulae and total, on clips whose truth is known.

The paper reports VBench's quality, semantic and total scores; VBench's networks are downloads. The
measures here carry VBench's names and its total (4 quality + semantic) / 5, and are a miniature: compare rows
of one table, never with a published VBench score. VBench's aesthetic quality is left out, since nothing here
could stand for taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from mobivid_core.data.captions import ATTRIBUTES, ClipLabel, label_indices
from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.frechet import distance_interval
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.judge import accuracy
from mobivid_core.measure.measures import ClipMeasures
from mobivid_core.measure.quality import ImagingReference

#: Quality dimensions and (floor, ceiling) of each normalisation to [0, 1], as VBench normalises. Differences of frames
#: have the floor 2/3: frames of independent uniform noise differ by 1/3. The others have a natural 0 and 1.
QUALITY: dict[str, tuple[float, float]] = {
    "subject_consistency": (0.0, 1.0),
    "background_consistency": (2 / 3, 1.0),
    "temporal_flickering": (2 / 3, 1.0),
    "motion_smoothness": (2 / 3, 1.0),
    "dynamic_degree": (0.0, 1.0),
    "imaging_quality": (0.0, 1.0),
}
#: Semantic dimensions, each the judge's accuracy on one attribute of the caption.
SEMANTIC: dict[str, str] = {"object_class": "shape", "color": "colour", "action": "motion", "scene": "background"}


@dataclass(frozen=True)
class Space:
    """A feature space in which distances are taken."""

    title: str  # as shown
    column: str  # its features in `ClipMeasures`
    real: str  # name of the distance from real clips, in `DISTANCES`
    reconstruction: str  # name of the distance from the same clips through the VAE
    missed: tuple[str, ...] | None = None  # damage that the distance from real clips did not see; None: not tried

    def finding(self) -> str:
        """One clause for a finding: which features, and what the trials say of them."""
        tried = "not tried" if self.missed is None else f"missed {', '.join(self.missed)}" if self.missed else "passed"
        return f"{self.title} (trials of the measures: {tried})"


#: The judge's features, and those of a network that never saw these clips; `trust.trusted_space` chooses the space that
#: headlines and bars are taken from.
SPACES: dict[str, Space] = {
    "judge": Space("the judge's features", "features", "frechet_real", "frechet_reconstruction"),
    "image": Space(
        "features of an ImageNet network", "image_features", "image_frechet_real", "image_frechet_reconstruction"
    ),
}
#: Distances, and where their features lie in `ClipMeasures` and in `Reference`.
DISTANCES: dict[str, tuple[str, str]] = {
    name: (space.column, name.replace("frechet_", ""))
    for space in SPACES.values()
    for name in (space.real, space.reconstruction)
}
#: What needs no network at all: {measure: attribute of the caption}, in the order of the columns of
#: `ClipMeasures.readback`. Reported beside the judge's, not in the total.
READBACK: dict[str, str] = {"color_pixels": "colour", "action_flow": "motion"}

#: Faults of the codec that are read off pixels (`borders.py`), and their column in `ClipMeasures`. Not in the total.
PIXELS: dict[str, str] = {"border_ratio": "borders", "sharpness": "sharpness"}


@dataclass(frozen=True)
class Reference:
    """What distances and imaging quality are measured against; made from clips that are not evaluated."""

    imaging: ImagingReference  # sharpness and noise of real clips
    real: Tensor  # (N, F) judge features of real clips
    reconstruction: Tensor | None = None  # (N, F) of the same clips through the VAE; None before there is one
    image_axes: ImageAxes | None = None  # axes that image features are compared in; None where these are not measured
    image_real: Tensor | None = None  # (N, K) projected image features of real clips
    image_reconstruction: Tensor | None = None  # (N, K) of the same clips through the VAE
    dropped: tuple[str, ...] = ()  # dimensions that failed their test (`trials.failing`) and count in no average
    space: Space = SPACES["judge"]  # where headline distances are taken (`trust.trusted_space`)


@dataclass(frozen=True)
class Scores:
    """One row of a quality table: {name: (value, low, high)} with 95 % intervals over n clips."""

    values: dict[str, tuple[float, float, float]]
    n: int

    def __getitem__(self, name: str) -> float:
        """The value of one measure."""
        if name not in self.values:
            raise ParameterError(f"no score {name!r}; there are {', '.join(self.values)}")
        return self.values[name][0]


def score(measures: ClipMeasures, labels: Sequence[ClipLabel], reference: Reference, *, resamples: int = 200) -> Scores:
    """Scores of measured clips against the captions they should show, by a bootstrap of so many `resamples`.

    Returns:
        The quality and semantic dimensions on [0, 1], `quality`, `semantic`, `total`, `all_together` (every attribute
        right), `warping_error`, `PIXELS` and the distances; without what was left blank.
    """
    table = dimension_table(measures, labels, reference)
    values = {name: intervals.mean(column, resamples=resamples) for name, column in table.items()}
    values = {name: triple for name, triple in values.items() if not np.isnan(triple[0])}
    for name in DISTANCES:
        pair = distance_features(measures, reference, name)
        if pair and len(measures) > 1:
            # a quarter of the resamples: each needs a singular value decomposition
            values[name] = distance_interval(*pair, resamples=max(20, resamples // 4))
    return Scores(values, len(measures))


def distance_features(measures: ClipMeasures, reference: Reference, name: str) -> tuple[Tensor, Tensor] | None:
    """The features (N, F) and (M, F) between which a distance of `DISTANCES` is taken; None where not measured."""
    ours, theirs = DISTANCES[name]
    features, target = getattr(measures, ours), getattr(reference, theirs)
    if features is None or target is None:
        return None
    return (reference.image_axes.project(features) if ours == "image_features" else features), target


def space_features(measures: ClipMeasures, reference: Reference, name: str = "real") -> tuple[Tensor, Tensor]:
    """Features (N, F) and (M, F) of the distance from "real" clips, or their "reconstruction", in the trusted space.

    A space that was not measured on the clips, or that the reference lacks, is a `ParameterError`.
    """
    wanted = getattr(reference.space, name)
    pair = distance_features(measures, reference, wanted)
    if pair is None:
        raise ParameterError(
            f"the distance {wanted} was not measured: evaluate with independent=True, against a reference with "
            f"{DISTANCES[wanted][1]}"
        )
    return pair


def dimension_table(measures: ClipMeasures, labels: Sequence[ClipLabel], reference: Reference) -> dict[str, np.ndarray]:
    """Every dimension of every clip, on [0, 1] after normalisation, and their averages: {name: (N,)}.

    The averages of a set of clips are means of those of its clips.
    """
    if len(labels) != len(measures):
        raise ParameterError(f"got {len(measures)} clips but {len(labels)} labels; each clip needs its own")
    raw = {name: getattr(measures, name) for name in QUALITY if name != "imaging_quality"}
    raw["imaging_quality"] = reference.imaging.score(measures.imaging)
    right = accuracy(measures.classes, label_indices(labels))
    # held within [0, 1], as VBench does before it averages
    table = {name: ((raw[name] - floor) / (top - floor)).clamp(0, 1) for name, (floor, top) in QUALITY.items()}
    table |= {name: right[attribute] for name, attribute in SEMANTIC.items()}
    table |= {"all_together": right["all"], "warping_error": measures.warping_error}
    pixels = {name: getattr(measures, column) for name, column in PIXELS.items()}
    table |= {name: value for name, value in pixels.items() if value is not None}
    if measures.readback is not None:
        truth = label_indices(labels)[:, [ATTRIBUTES.index(attribute) for attribute in READBACK.values()]]
        table |= dict(zip(READBACK, (measures.readback == truth).float().T, strict=True))
    columns = {name: value.numpy().astype(np.float64) for name, value in table.items()}
    return columns | _averages(columns, reference.dropped)


def total_score(quality: float | np.ndarray, semantic: float | np.ndarray) -> float | np.ndarray:
    """VBench's total: (4 quality + semantic) / 5."""
    return (4 * quality + semantic) / 5


def shuffled(labels: Sequence[ClipLabel], seed: int = 0) -> list[ClipLabel]:
    """The labels in another order: what a generator that ignores its caption would score."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return [labels[i] for i in order]


def table(rows: dict[str, Scores], names: Sequence[str]) -> pd.DataFrame:
    """Measures `names` of each row: value, low and high (blank where a row lacks one), and what intervals are over."""
    records = []
    for title, scores in rows.items():
        kinds = {getattr(scores.values[name], "kind", "") for name in names if name in scores.values} - {""}
        record: dict[str, object] = {"clips": title, "n": scores.n, "interval": ", ".join(sorted(kinds))}
        for name in names:
            record |= intervals.named(name, scores.values.get(name, (np.nan,) * 3))
        records.append(record)
    return pd.DataFrame(records)


def compare(rows: dict[str, Scores], names: Sequence[str], intervals_of: str) -> pd.DataFrame:
    """A line a measure, a column a row title, with the intervals of one row: short to read where rows are few."""
    frame = pd.DataFrame({"measure": list(names)})
    for title, scores in rows.items():
        triples = [scores.values.get(name, (np.nan,) * 3) for name in names]
        frame[title] = [value for value, _, _ in triples]
        if title == intervals_of:
            frame[f"{title}, low"] = [low for _, low, _ in triples]
            frame[f"{title}, high"] = [high for _, _, high in triples]
    return frame


def _averages(columns: dict[str, np.ndarray], dropped: Sequence[str]) -> dict[str, np.ndarray]:
    """Quality, semantic and total of each clip: weighted means; an average of nothing is unknown."""
    parts = []
    for group in (QUALITY, SEMANTIC):
        names = [name for name in group if name not in dropped]
        weights = np.array([0.5 if name == "dynamic_degree" else 1.0 for name in names])  # as VBench counts
        parts.append((names, weights / weights.sum()) if names else (["all_together"], np.array([np.nan])))
    (first, q), (second, s) = parts
    parts.append((first + second, np.concatenate([total_score(q, 0), total_score(0, s)])))
    means = (np.stack([columns[name] for name in names]).T @ weights for names, weights in parts)
    return dict(zip(("quality", "semantic", "total"), means, strict=True))

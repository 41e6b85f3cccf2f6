"""MiniVBench: VBench's names, formulae and total, on clips whose truth is known.

The paper reports VBench's quality, semantic and total scores; VBench's networks are downloads. The
measures here carry VBench's names and its total (4 quality + semantic) / 5, and are a miniature: compare rows
of one table, never with a published VBench score. VBench's aesthetic quality is left out, since nothing here
could stand for taste.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.data.captions import ClipLabel, label_indices
from mobivid_core.errors import ParameterError
from mobivid_core.evaluate.judge import Judge, accuracy
from mobivid_core.evaluate.metrics import bootstrap_interval, frechet_distance
from mobivid_core.evaluate.motion import measure_motion, temporal_flickering
from mobivid_core.evaluate.quality import (
    ImagingReference,
    background_consistency,
    imaging_statistics,
    subject_consistency,
)

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
#: VBench counts dynamic degree half.
WEIGHTS = {name: 0.5 if name == "dynamic_degree" else 1.0 for name in QUALITY}
#: Semantic dimensions, each the judge's accuracy on one attribute of the caption.
SEMANTIC: dict[str, str] = {"object_class": "shape", "color": "colour", "action": "motion", "scene": "background"}
DISTANCES = ("frechet_real", "frechet_reconstruction")


@dataclass(frozen=True)
class ClipMeasures:
    """Everything measured on a set of clips, one row a clip; small, so that the clips themselves can be dropped.

    Attributes:
        classes: (N, 4) what the judge sees.
        features: (N, F) the judge's features.
        imaging: (N, 3) `imaging_statistics`.
        subject_consistency: (N,), and so on for the other quality dimensions.
        warping_error: (N,), reported apart.
    """

    classes: Tensor
    features: Tensor
    imaging: Tensor
    subject_consistency: Tensor
    background_consistency: Tensor
    temporal_flickering: Tensor
    motion_smoothness: Tensor
    dynamic_degree: Tensor
    warping_error: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: Tensor | np.ndarray | slice) -> ClipMeasures:
        """The measures of some clips: a mask, indices or a slice."""
        return ClipMeasures(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def join(cls, parts: Iterable[ClipMeasures]) -> ClipMeasures:
        """Concatenate the measures of several batches."""
        parts = list(parts)
        if not parts:
            raise ParameterError("no clips were measured: got no batches")
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class Reference:
    """What distances and imaging quality are measured against; made from clips that are not evaluated.

    Attributes:
        imaging: Sharpness and noise of real clips.
        real: (N, F) judge features of real clips.
        reconstruction: (N, F) judge features of the same clips through the VAE; None before there is one.
    """

    imaging: ImagingReference
    real: Tensor
    reconstruction: Tensor | None = None


@dataclass(frozen=True)
class Scores:
    """One row of a quality table.

    Attributes:
        values: {name: (value, low, high)} with 95 % bootstrap intervals over clips.
        n: Clips measured.
    """

    values: dict[str, tuple[float, float, float]]
    n: int

    def __getitem__(self, name: str) -> float:
        """The value of one measure.

        Raises:
            ParameterError: It was not measured.
        """
        if name not in self.values:
            raise ParameterError(f"no score {name!r}; there are {', '.join(self.values)}")
        return self.values[name][0]


def measure(clips: Tensor, judge: Judge, quality: bool = True) -> ClipMeasures:
    """Measure a batch of clips.

    Args:
        clips: (B, 3, T, H, W) in [-1, 1].
        judge: A trained judge.
        quality: False leaves the quality measures blank (NaN): four times faster, enough for a curve of semantics
            and distances.
    """
    classes, features = judge.read(clips)
    if not quality:
        blank = torch.full((len(clips),), torch.nan)
        return ClipMeasures(classes, features, blank[:, None].expand(-1, 3), *[blank] * 6)
    motion = measure_motion(clips)
    return ClipMeasures(
        classes,
        features,
        imaging_statistics(clips),
        subject_consistency(clips, judge),
        background_consistency(clips),
        temporal_flickering(clips),
        motion.smoothness,
        motion.dynamic,
        motion.warping_error,
    )


def score(
    measures: ClipMeasures, labels: Sequence[ClipLabel], reference: Reference, *, resamples: int = 200, seed: int = 0
) -> Scores:
    """Scores of measured clips against the captions they should show.

    Args:
        measures: N clips.
        labels: N labels, what each clip's caption asked for.
        reference: Real clips to compare with.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        The quality and semantic dimensions on [0, 1], `quality`, `semantic`, `total`, `all_together` (every attribute
        right), `warping_error` and the distances; without what was left blank.

    Raises:
        ParameterError: The numbers of clips and labels differ.
    """
    if len(labels) != len(measures):
        raise ParameterError(f"got {len(measures)} clips but {len(labels)} labels; each clip needs its own")
    table = dimension_table(measures, labels, reference)
    names = list(table)
    rows = np.stack([table[name] for name in names], 1)
    values = {name: bootstrap_interval(rows[:, i], n=resamples, seed=seed) for i, name in enumerate(names)}
    column = {name: i for i, name in enumerate(names)}
    for name, columns, weights in _aggregates(column):
        values[name] = bootstrap_interval(rows[:, columns] @ weights, n=resamples, seed=seed)
    values = {name: triple for name, triple in values.items() if not np.isnan(triple[0])}
    features = measures.features.numpy()
    for name, target in zip(DISTANCES, (reference.real, reference.reconstruction), strict=True):
        if target is not None and len(features) > 1:
            values[name] = _distance_interval(features, target.numpy(), resamples, seed)
    return Scores(values, len(measures))


def dimension_table(measures: ClipMeasures, labels: Sequence[ClipLabel], reference: Reference) -> dict[str, np.ndarray]:
    """Every dimension of every clip, on [0, 1] after normalisation: {name: (N,)}."""
    raw = {name: getattr(measures, name) for name in QUALITY if name != "imaging_quality"}
    raw["imaging_quality"] = reference.imaging.score(measures.imaging)
    right = accuracy(measures.classes, label_indices(labels))
    table = {name: normalise(raw[name], *limits) for name, limits in QUALITY.items()}
    table |= {name: right[attribute] for name, attribute in SEMANTIC.items()}
    table |= {"all_together": right["all"], "warping_error": measures.warping_error}
    return {name: value.numpy().astype(np.float64) for name, value in table.items()}


def normalise(values: Tensor, floor: float, ceiling: float) -> Tensor:
    """(value - floor) / (ceiling - floor), held within [0, 1], as VBench does before it averages."""
    return ((values - floor) / (ceiling - floor)).clamp(0, 1)


def total_score(quality: float | np.ndarray, semantic: float | np.ndarray) -> float | np.ndarray:
    """VBench's total: (4 quality + semantic) / 5."""
    return (4 * quality + semantic) / 5


def shuffled(labels: Sequence[ClipLabel], seed: int = 0) -> list[ClipLabel]:
    """The labels in another order: what a generator that ignores its caption would score."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return [labels[i] for i in order]


def table(rows: dict[str, Scores], names: Sequence[str]) -> pd.DataFrame:
    """Scores as a table with three columns a measure: value, low and high.

    Args:
        rows: {row title: scores}.
        names: Measures to show, in order; one that a row lacks is left empty.
    """
    records = []
    for title, scores in rows.items():
        record: dict[str, object] = {"clips": title, "n": scores.n}
        for name in names:
            record[name], record[f"{name}_low"], record[f"{name}_high"] = scores.values.get(name, (np.nan,) * 3)
        records.append(record)
    return pd.DataFrame(records)


def compare(rows: dict[str, Scores], names: Sequence[str], intervals_of: str) -> pd.DataFrame:
    """Scores with a line a measure and a column a row title: short to read where rows are few.

    Args:
        rows: {row title: scores}.
        names: Measures to show, in order.
        intervals_of: The row title whose intervals are shown as well.
    """
    frame = pd.DataFrame({"measure": list(names)})
    for title, scores in rows.items():
        triples = [scores.values.get(name, (np.nan,) * 3) for name in names]
        frame[title] = [value for value, _, _ in triples]
        if title == intervals_of:
            frame[f"{title}, low"] = [low for _, low, _ in triples]
            frame[f"{title}, high"] = [high for _, _, high in triples]
    return frame


def _aggregates(column: dict[str, int]) -> list[tuple[str, list[int], np.ndarray]]:
    """(name, columns, weights) of quality, semantic and total: all are weighted means of per-clip values."""
    weights = np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values())
    quality, semantic = [column[name] for name in QUALITY], [column[name] for name in SEMANTIC]
    even = np.full(len(semantic), 1 / len(semantic))
    both = np.concatenate([total_score(weights, 0), total_score(0, even)])
    return [("quality", quality, weights), ("semantic", semantic, even), ("total", quality + semantic, both)]


def _distance_interval(
    features: np.ndarray, target: np.ndarray, resamples: int, seed: int
) -> tuple[float, float, float]:
    # a distance costs two eigenvalue problems: a quarter of the resamples keeps a table within seconds
    count = max(20, resamples // 4)
    value, low, high = bootstrap_interval(
        features, lambda rows: frechet_distance(rows, target), n=count, seed=seed, centred=True
    )
    return value, max(0.0, low), high

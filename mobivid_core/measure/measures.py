"""Everything that is measured on clips, one row a clip: small, so that the clips themselves can be dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.render import RenderedClips, render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.measure.borders import border_ratio, sharpness
from mobivid_core.measure.image_features import image_features
from mobivid_core.measure.judge import Judge
from mobivid_core.measure.motion import measure_motion, temporal_flickering
from mobivid_core.measure.quality import background_consistency, imaging_statistics, read_colour, subject_consistency

#: Clips drawn, decoded and measured at once.
BATCH = 16


@dataclass(frozen=True)
class ClipMeasures:
    """Measures of a set of N clips, (N,) each unless said; those that may be None are blank where not measured."""

    classes: Tensor  # (N, 4) what the judge sees
    features: Tensor  # (N, F) the judge's features
    imaging: Tensor  # (N, 3) `imaging_statistics`
    subject_consistency: Tensor
    background_consistency: Tensor
    temporal_flickering: Tensor
    motion_smoothness: Tensor
    dynamic_degree: Tensor
    warping_error: Tensor
    readback: Tensor | None = None  # (N, 2) colour and motion as read without a network
    image_features: Tensor | None = None  # (N, G) features of a network that never saw these clips
    borders: Tensor | None = None  # `borders.border_ratio`
    sharpness: Tensor | None = None  # `borders.sharpness`

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: Tensor | np.ndarray | slice) -> ClipMeasures:
        """The measures of some clips: a mask, indices or a slice."""
        return ClipMeasures(*(None if column is None else column[rows] for column in self.columns().values()))

    def columns(self) -> dict[str, Tensor | None]:
        """{name: one row a clip, or None where not measured}."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def join(cls, parts: Iterable[ClipMeasures]) -> ClipMeasures:
        """Concatenate the measures of several batches; what one of them lacks, the whole lacks."""
        parts = list(parts)
        if not parts:
            raise ParameterError("no clips were measured: got no batches")
        columns = {name: [part.columns()[name] for part in parts] for name in parts[0].columns()}
        return cls(**{k: None if any(x is None for x in v) else torch.cat(v) for k, v in columns.items()})


def measure(clips: Tensor, judge: Judge, quality: bool = True, independent: bool = False) -> ClipMeasures:
    """Measure clips (B, 3, T, H, W) in [-1, 1].

    Without `quality` the quality measures are blank (NaN) and the read-back is left out: several times faster, enough
    for a curve. `independent` adds the features of a network that never saw these clips.
    """
    classes, features = judge.read(clips)
    second = image_features(clips) if independent else None
    pixels = {"borders": border_ratio(clips).cpu(), "sharpness": sharpness(clips).cpu()}
    if not quality:
        blank = torch.full((len(clips),), torch.nan)
        blanks = blank[:, None].expand(-1, 3), *[blank] * 6
        return ClipMeasures(classes, features, *blanks, image_features=second, **pixels)
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
        torch.stack([read_colour(clips), motion.action], 1),
        second,
        **pixels,
    )


def render_batches(split: str, start: int, n: int, *, frames: int, size: int) -> Iterator[RenderedClips]:
    """Clips `start` to `start + n` of a split, drawn batch by batch."""
    for first in range(start, start + n, BATCH):
        yield render_clips(split, range(first, min(first + BATCH, start + n)), frames=frames, size=size)

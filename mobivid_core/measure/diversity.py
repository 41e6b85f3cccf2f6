"""How different clips of one caption are: a generator may meet every caption and still know one clip for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.captions import caption
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval

_LABELS_SCANNED = 20_000


@dataclass(frozen=True)
class Diversity:
    """How far apart clips of one caption lie: (C,) mean pairwise distances of features within each of C captions.

    `generated` is of generated clips, `real` of real ones through the VAE.
    """

    generated: np.ndarray
    real: np.ndarray

    @property
    def ratio(self) -> Interval:
        """1 when generated clips are as different as real ones, 0 when they are all alike; over captions."""
        return intervals.ratio(self.generated, self.real, over="captions")

    def over(self, other: Diversity) -> Interval:
        """Spread of our clips over another model's, of the same captions."""
        return intervals.ratio(self.generated, other.generated, over="captions")


def caption_diversity(
    make: Callable[[Sequence[str], Sequence[int]], Tensor],
    reconstruct: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor],
    *,
    captions: int,
    repeats: int,
    frames: int,
    size: int,
) -> Diversity:
    """Spread of `repeats` generated clips of each of `captions` captions, beside that of real clips.

    `make` goes from `repeats` times one caption and the numbers of their noises to clips (R, 3, T, H, W), `reconstruct`
    from real clips of `frames` and `size` through the VAE, so that both sides carry the codec's error, and `features`
    from clips to (R, F). Test captions that do not repeat as often are a `ParameterError`.
    """
    generated, real = [], []
    for number, indices in enumerate(repeated_labels(captions, repeats)):
        words = [caption(label_of("test", indices[0]))] * repeats
        made = make(words, [10_000 * (number + 1) + i for i in range(repeats)])
        generated.append(pairwise_distance(features(made)))
        clips = render_clips("test", indices, frames=frames, size=size).clips
        real.append(pairwise_distance(features(reconstruct(clips))))
    return Diversity(np.array(generated), np.array(real))


def repeated_labels(captions: int, repeats: int) -> list[list[int]]:
    """Indices of test clips that show the same label, `repeats` for each of `captions` labels."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    groups: list[list[int]] = []
    for index in range(_LABELS_SCANNED):
        label = label_of("test", index)
        members = found[(label.shape, label.colour, label.motion, label.background)]
        members.append(index)
        if len(members) == repeats:
            groups.append(members[:])
            if len(groups) == captions:
                return groups
    raise ParameterError(
        f"only {len(groups)} of {captions} captions repeat {repeats} times in {_LABELS_SCANNED} test clips; "
        "ask for fewer captions or repeats"
    )


def pairwise_distance(features: np.ndarray | Tensor) -> float:
    """Mean Euclidean distance between different rows of (N, F): how far apart the members of a set lie."""
    rows = torch.as_tensor(features, dtype=torch.float64)
    if len(rows) < 2:
        raise ParameterError(f"a pairwise distance needs two rows or more, got {len(rows)}")
    return float(torch.pdist(rows).mean())

"""How different clips of one caption are: a generator may meet every caption and still know one clip for each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.captions import caption
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.text import CaptionSampler

if TYPE_CHECKING:
    from mobivid_core.measure.generation import Evaluator

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
    evaluator: Evaluator, sampler: CaptionSampler, captions: int, repeats: int, seed: int
) -> Diversity:
    """Spread, in judge features, of `repeats` generated clips of each of `captions` captions, beside real clips.

    The real clips go through the VAE, so that both sides carry the codec's error. Test captions that do not repeat as
    often are a `ParameterError`.
    """
    vae, sizes = evaluator.vae, {"frames": evaluator.profile.frames, "size": evaluator.profile.size}
    spread: list[list[float]] = []
    for number, indices in enumerate(repeated_labels(captions, repeats)):
        words = [caption(label_of("test", indices[0]))] * repeats
        noise = evaluator.noise([10_000 * (number + 1) + i for i in range(repeats)], seed)
        clips = render_clips("test", indices, **sizes).clips
        both = sampler(words, noise), vae.encode_latents(clips.to(vae.device)).detach()
        features = (evaluator.judge.read(evaluator.decode(latents))[1] for latents in both)
        spread.append([pairwise_distance(x) for x in features])
    return Diversity(*np.array(spread).T.copy())


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

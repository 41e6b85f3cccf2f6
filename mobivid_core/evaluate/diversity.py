"""How different clips of one caption are: a generator may meet every caption and still know one clip for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from mobivid_core.data.captions import caption
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.evaluate.metrics import pairwise_distance

_LABELS_SCANNED = 20_000


def caption_diversity(
    make: Callable[[Sequence[str], Sequence[int]], Tensor],
    reconstruct: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor],
    *,
    captions: int,
    repeats: int,
    frames: int,
    size: int,
    resamples: int = 1000,
) -> dict[str, float]:
    """Spread of generated clips within a caption, as a share of that of real clips.

    Args:
        make: From repeats of one caption and the numbers of their noises to clips (R, 3, T, H, W).
        reconstruct: Real clips through the VAE, so that both sides carry the codec's error.
        features: From clips to (R, F).
        captions: Captions.
        repeats: Clips of each.
        frames: Frames of a real clip.
        size: Its height and width in pixels.
        resamples: Bootstrap resamples, over captions.

    Returns:
        `generated` and `real`: mean pairwise distance of features within a caption; their `ratio`, 1 when generated
        clips are as different as real ones and 0 when they are all alike, and its 95 % interval `low` to `high`.

    Raises:
        ParameterError: The test captions do not repeat as often.
    """
    generated, real = [], []
    for number, indices in enumerate(repeated_labels(captions, repeats)):
        words = [caption(label_of("test", indices[0]))] * repeats
        made = make(words, [10_000 * (number + 1) + i for i in range(repeats)])
        generated.append(pairwise_distance(features(made)))
        clips = render_clips("test", indices, frames=frames, size=size).clips
        real.append(pairwise_distance(features(reconstruct(clips))))
    ours, theirs = np.array(generated), np.array(real)
    rows = np.random.default_rng(0).integers(captions, size=(resamples, captions))
    low, high = np.quantile(ours[rows].mean(1) / np.maximum(theirs[rows].mean(1), 1e-9), [0.025, 0.975])
    return {
        "generated": float(ours.mean()),
        "real": float(theirs.mean()),
        "ratio": float(ours.mean() / max(theirs.mean(), 1e-9)),
        "low": float(low),
        "high": float(high),
    }


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

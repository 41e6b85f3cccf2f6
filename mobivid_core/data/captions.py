"""What a captioned clip can show, and the words for it.

Stands in for the paper's captioned training videos, which are not public. Attributes are exact labels,
so that a judge network can read them back from generated clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

ATTRIBUTES = ("shape", "colour", "motion", "background")

VOCABULARY: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "square", "triangle", "star", "t-shirt", "trousers", "bag", "boot"),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white"),
    "motion": ("left", "right", "up", "down", "circling", "still", "growing", "shrinking"),
    "background": ("plain", "gradient", "photo", "film"),
}

#: How each wording speaks of motion and background; `{}` in a template is colour, shape, motion, background.
_MOTION_WORDS: tuple[dict[str, str], ...] = (
    {
        "left": "moving left",
        "right": "moving right",
        "up": "moving up",
        "down": "moving down",
        "circling": "moving in a circle",
        "still": "standing still",
        "growing": "growing",
        "shrinking": "shrinking",
    },
    {
        "left": "sliding to the left",
        "right": "sliding to the right",
        "up": "rising upwards",
        "down": "falling downwards",
        "circling": "going round in a circle",
        "still": "not moving",
        "growing": "getting bigger",
        "shrinking": "getting smaller",
    },
    {
        "left": "that goes left",
        "right": "that goes right",
        "up": "that goes up",
        "down": "that goes down",
        "circling": "that circles",
        "still": "that stays still",
        "growing": "that grows",
        "shrinking": "that shrinks",
    },
    {
        "left": "heading left",
        "right": "heading right",
        "up": "climbing",
        "down": "dropping",
        "circling": "running in circles",
        "still": "motionless",
        "growing": "expanding",
        "shrinking": "contracting",
    },
    {
        "left": "gliding over to the left side",
        "right": "gliding over to the right side",
        "up": "travelling to the top",
        "down": "travelling to the bottom",
        "circling": "revolving around a point",
        "still": "staying in place",
        "growing": "swelling in size",
        "shrinking": "dwindling in size",
    },
    {
        "left": "drifting leftwards",
        "right": "drifting rightwards",
        "up": "floating up",
        "down": "sinking down",
        "circling": "orbiting",
        "still": "at rest",
        "growing": "becoming larger",
        "shrinking": "becoming smaller",
    },
)
_BACKGROUND_WORDS: tuple[dict[str, str], ...] = (
    {
        "plain": "on a plain background",
        "gradient": "on a gradient background",
        "photo": "on a photo background",
        "film": "on a film background",
    },
    {
        "plain": "over a plain colour",
        "gradient": "over a smooth gradient",
        "photo": "over a photograph",
        "film": "over a film scene",
    },
    {
        "plain": "in front of a plain wall",
        "gradient": "in front of a gradient",
        "photo": "in front of a photo",
        "film": "in front of a film frame",
    },
    {
        "plain": "against an empty backdrop",
        "gradient": "against a shaded gradient",
        "photo": "against a photographic backdrop",
        "film": "against a movie scene",
    },
    {
        "plain": "on one flat colour",
        "gradient": "with a gradient as backdrop",
        "photo": "with a picture as backdrop",
        "film": "with a still from a film as backdrop",
    },
    {
        "plain": "with nothing behind",
        "gradient": "with a gradient behind",
        "photo": "with a photo behind",
        "film": "with a film scene behind",
    },
)
_TEMPLATES = (
    "a {colour} {shape} {motion} {background}",
    "{background}, a {colour} {shape} {motion}",
    "a {colour} {shape} {motion} {background}",
    "there is a {colour} {shape} {background}, {motion}",
    "a {shape} in {colour}, {motion}, {background}",
    "video of one {colour} {shape} {motion}, {background}",
)
#: The last wording is never used in training: it measures how well unseen wordings are understood.
WORDINGS = len(_TEMPLATES)
TRAIN_WORDINGS = WORDINGS - 1


@dataclass(frozen=True)
class ClipLabel:
    """What one clip shows.

    Attributes:
        shape: One of `VOCABULARY["shape"]`; colour, motion and background likewise.
        wording: Which wording its caption uses.
    """

    shape: str
    colour: str
    motion: str
    background: str
    wording: int = 0

    @property
    def unseen(self) -> bool:
        """Whether (shape, colour, motion) is one of the 10 % of triples held out of training."""
        return is_held_out(self.shape, self.colour, self.motion)


def is_held_out(shape: str, colour: str, motion: str) -> bool:
    """Whether a triple is kept out of every split but `test`: one in ten, spread over all values."""
    i, j, k = (VOCABULARY[a].index(v) for a, v in zip(ATTRIBUTES, (shape, colour, motion), strict=False))
    return (3 * i + 7 * j + k) % 10 == 0


def caption(label: ClipLabel) -> str:
    """Words for a label, e.g. `a red circle moving left on a plain background`."""
    return (
        _TEMPLATES[label.wording]
        .format(
            colour=label.colour,
            shape=label.shape if label.shape != "trousers" else "pair of trousers",
            motion=_MOTION_WORDS[label.wording][label.motion],
            background=_BACKGROUND_WORDS[label.wording][label.background],
        )
        .replace("a orange", "an orange")
    )


def label_indices(labels: Sequence[ClipLabel]) -> torch.Tensor:
    """Class indices of labels.

    Returns:
        (N, 4) int64, columns in the order of `ATTRIBUTES`.
    """
    rows = [[VOCABULARY[a].index(getattr(label, a)) for a in ATTRIBUTES] for label in labels]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), len(ATTRIBUTES))


def draw_label(rng: np.random.Generator, *, held_out: bool | None) -> ClipLabel:
    """Draw a label: uniform over attributes but for the background.

    Args:
        rng: Source of randomness.
        held_out: True for a held-out triple, False for a trainable one, None for either.
    """
    while True:
        shape, colour, motion = (VOCABULARY[a][rng.integers(len(VOCABULARY[a]))] for a in ATTRIBUTES[:3])
        if held_out is None or is_held_out(shape, colour, motion) == held_out:
            break
    background = str(rng.choice(VOCABULARY["background"], p=(0.35, 0.35, 0.15, 0.15)))
    return ClipLabel(shape, colour, motion, background, wording=int(rng.integers(TRAIN_WORDINGS)))

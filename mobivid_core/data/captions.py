"""Content of captioned clips (objects, colours, motions, backgrounds), and the captions that describe it.

Stands in for the paper's captioned training videos, which are not public. Attributes are exact labels, so that a judge
network can read them back from generated clips. A caption is drawn from a small grammar: a template, a noun, a colour
phrase, a motion phrase and a background phrase. Some templates and phrases are held out of training: they measure how
well words are understood that no training caption uses.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mobivid_core.data.wordings import BACKGROUNDS, COLOURS, MOTIONS, NOUNS, PREFIXES, TEMPLATES

ATTRIBUTES = ("shape", "colour", "motion", "background")

VOCABULARY: dict[str, tuple[str, ...]] = {
    "shape": tuple("star heart apple tree house car rocket sailboat fish butterfly elephant mushroom".split()),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white"),
    "motion": ("left", "right", "up", "down", "circling", "still", "growing", "shrinking"),
    "background": ("plain", "gradient", "photo", "film"),
}
#: How often each background is shown.
BACKGROUND_SHARES = (0.35, 0.25, 0.2, 0.2)

#: Wordings of the grammar that training draws from, and those held out of it.
TRAIN_WORDINGS = 512
UNSEEN_WORDINGS = 16
WORDINGS = TRAIN_WORDINGS + UNSEEN_WORDINGS


@dataclass(frozen=True)
class ClipLabel:
    """What one clip shows."""

    shape: str  # one of `VOCABULARY["shape"]`; colour, motion and background likewise
    colour: str
    motion: str
    background: str
    wording: int = 0  # which wording its caption uses, 0 to `WORDINGS` - 1; those from `TRAIN_WORDINGS` on are held out

    @property
    def unseen(self) -> bool:
        """Whether (shape, colour, motion) is one of the 10 % of triples held out of training."""
        return is_held_out(self.shape, self.colour, self.motion)


def is_held_out(shape: str, colour: str, motion: str) -> bool:
    """Whether a triple is kept out of every split but `test`: one in ten, spread over all values."""
    i, j, k = (VOCABULARY[a].index(v) for a, v in zip(ATTRIBUTES, (shape, colour, motion), strict=False))
    return (3 * i + 7 * j + k) % 10 == 0


@functools.cache
def triples(held_out: bool) -> tuple[tuple[str, str, str], ...]:
    """All (shape, colour, motion) that are held out, or all that are trained."""
    names = [VOCABULARY[name] for name in ATTRIBUTES[:3]]
    found = [(s, c, m) for s in names[0] for c in names[1] for m in names[2]]
    return tuple(triple for triple in found if is_held_out(*triple) == held_out)


def caption(label: ClipLabel) -> str:
    """Words for a label, e.g. `a red star moving left on a plain background`."""
    unseen = label.wording >= TRAIN_WORDINGS
    template, prefix, style, *choices = _wording(label.wording)
    parts = (NOUNS[label.shape], MOTIONS[label.motion], BACKGROUNDS[label.background])
    phrases = [part.phrases(unseen) for part in parts]
    noun, motion, background = (own[int(u * len(own))] for own, u in zip(phrases, choices, strict=True))
    participle, finite = motion.split("|")
    colour = style.format(label.colour)
    after = label.colour if colour.endswith("-coloured") else colour  # nobody says "a star in red-coloured"
    parts = {"c": colour, "k": after, "n": noun, "P": participle, "F": finite, "b": background}
    words = template.replace("*", prefix).format(**parts)
    return re.sub(r"\ba (?=[aeiou])", "an ", words)


@functools.cache
def _wording(number: int) -> tuple:
    """Template, prefix, colour phrase and the three draws that choose noun, motion and background phrases."""
    if number == 0:  # the plainest one, which examples show
        return TEMPLATES.train[0], "", "{}", 0.0, 0.0, 0.0
    unseen = number >= TRAIN_WORDINGS
    u = np.random.default_rng([512, number]).random(6)
    templates, colours = TEMPLATES.phrases(unseen), COLOURS.phrases(unseen)
    prefix = "" if unseen else PREFIXES[int(u[1] * len(PREFIXES))]
    chosen = templates[number % len(templates)], prefix, colours[int(u[2] * len(colours))]
    return *chosen, *(float(x) for x in u[3:])


def label_indices(labels: Sequence[ClipLabel]) -> torch.Tensor:
    """Class indices of labels, (N, 4) int64, columns in the order of `ATTRIBUTES`."""
    rows = [[VOCABULARY[a].index(getattr(label, a)) for a in ATTRIBUTES] for label in labels]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), len(ATTRIBUTES))


def label_from(uniform: Sequence[float], *, held_out: bool) -> ClipLabel:
    """The label that three numbers in [0, 1) choose: triple, background, wording (of training)."""
    pool = triples(held_out)
    background = int(np.searchsorted(np.cumsum(BACKGROUND_SHARES)[:-1], uniform[1], side="right"))
    triple, wording = pool[int(uniform[0] * len(pool))], int(uniform[2] * TRAIN_WORDINGS)
    return ClipLabel(*triple, VOCABULARY["background"][background], wording)

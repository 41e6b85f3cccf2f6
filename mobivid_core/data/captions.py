"""What a captioned clip can show, and hundreds of ways to say it.

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

ATTRIBUTES = ("shape", "colour", "motion", "background")

VOCABULARY: dict[str, tuple[str, ...]] = {
    "shape": (
        "star",
        "heart",
        "apple",
        "tree",
        "house",
        "car",
        "rocket",
        "sailboat",
        "fish",
        "butterfly",
        "elephant",
        "mushroom",
    ),
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
class _Words:
    """Phrases of one part of the grammar: those of training, and those held out."""

    train: tuple[str, ...]
    unseen: tuple[str, ...]

    def of(self, unseen: bool) -> tuple[str, ...]:
        return self.unseen if unseen else self.train


#: {c} colour phrase before its noun, {k} colour elsewhere, {n} noun, {P} motion as a participle, {F} motion as a
#: finite verb, {b} background; `*` takes a prefix.
_TEMPLATES = _Words(
    (
        "*a {c} {n} {P} {b}",
        "*a {c} {n} {P} {b}",
        "{b}, a {c} {n} {P}",
        "there is a {c} {n} {b}, {P}",
        "*a {n} in {k}, {P}, {b}",
        "*a {c} {n} that {F} {b}",
        "a {c} {n} {F} {b}",
        "{b}, a {c} {n} {F}",
        "*one {c} {n}, {P}, {b}",
        "*a {n} coloured {k} that {F}, {b}",
        "{c} {n} {P} {b}",
        "the {c} {n} {F} {b}",
        "a {c} {n} {b}, and it {F}",
        "{n}, {k}, {P}, {b}",
        "*a {n} of {k} colour {P} {b}",
    ),
    (
        "we see a {c} {n} {b} as it {F}",
        "please show a {c} {n} {P} {b}",
        "an animation where a {c} {n} {F} {b}",
        "look, the {n} is {k} and {F} {b}",
    ),
)
_PREFIXES = ("", "", "a video of ", "a clip of ", "footage of ", "video: ")
_COLOURS = _Words(("{}", "{}", "bright {}", "{}-coloured"), ("{}", "vivid {}"))
_NOUNS: dict[str, _Words] = {
    "star": _Words(("star", "star shape", "little star"), ("five-pointed star",)),
    "heart": _Words(("heart", "heart shape", "little heart"), ("love heart",)),
    "apple": _Words(("apple", "ripe apple", "little apple"), ("fresh apple",)),
    "tree": _Words(("tree", "small tree", "cartoon tree"), ("leafy tree",)),
    "house": _Words(("house", "little house", "small house"), ("cottage", "home")),
    "car": _Words(("car", "toy car", "motor car"), ("automobile", "vehicle")),
    "rocket": _Words(("rocket", "space rocket", "toy rocket"), ("rocket ship",)),
    "sailboat": _Words(("sailboat", "sailing boat", "boat"), ("yacht", "sailing ship")),
    "fish": _Words(("fish", "little fish", "cartoon fish"), ("aquarium fish",)),
    "butterfly": _Words(("butterfly", "little butterfly", "cartoon butterfly"), ("winged butterfly",)),
    "elephant": _Words(("elephant", "small elephant", "cartoon elephant"), ("baby elephant",)),
    "mushroom": _Words(("mushroom", "little mushroom", "cartoon mushroom"), ("toadstool",)),
}


def _sideways(side: str) -> _Words:
    """Motion to one side; each phrase is `participle|finite verb`."""
    return _Words(
        (
            f"moving {side}|moves {side}",
            f"moving to the {side}|moves to the {side}",
            f"sliding to the {side}|slides to the {side}",
            f"drifting {side}wards|drifts {side}wards",
            f"going {side}|goes {side}",
            f"heading {side}|heads {side}",
            f"travelling {side}|travels {side}",
            f"gliding to the {side}|glides to the {side}",
            f"floating {side}|floats {side}",
        ),
        (
            f"shifting towards the {side}|shifts towards the {side}",
            f"wandering over to the {side} side|wanders over to the {side} side",
        ),
    )


_MOTIONS: dict[str, _Words] = {
    "left": _sideways("left"),
    "right": _sideways("right"),
    "up": _Words(
        (
            "moving up|moves up",
            "rising|rises",
            "going up|goes up",
            "climbing|climbs",
            "floating upwards|floats upwards",
            "heading up|heads up",
            "ascending|ascends",
            "drifting up|drifts up",
        ),
        ("travelling to the top|travels to the top", "lifting off upwards|lifts off upwards"),
    ),
    "down": _Words(
        (
            "moving down|moves down",
            "falling|falls",
            "going down|goes down",
            "sinking|sinks",
            "dropping down|drops down",
            "heading down|heads down",
            "descending|descends",
            "drifting downwards|drifts downwards",
        ),
        ("travelling to the bottom|travels to the bottom", "tumbling downwards|tumbles downwards"),
    ),
    "circling": _Words(
        (
            "circling|circles",
            "moving in a circle|moves in a circle",
            "going round in circles|goes round in circles",
            "orbiting|orbits",
            "running in circles|runs in circles",
            "circling around|circles around",
            "looping around|loops around",
            "revolving around a point|revolves around a point",
        ),
        ("going round and round|goes round and round", "tracing a circle|traces a circle"),
    ),
    "still": _Words(
        (
            "standing still|stands still",
            "not moving|does not move",
            "staying still|stays still",
            "staying motionless|stays motionless",
            "resting|rests",
            "staying in place|stays in place",
            "keeping still|keeps still",
            "standing motionless|stands motionless",
        ),
        ("remaining in one spot|remains in one spot", "holding still|holds still"),
    ),
    "growing": _Words(
        (
            "growing|grows",
            "getting bigger|gets bigger",
            "becoming larger|becomes larger",
            "expanding|expands",
            "swelling|swells",
            "getting larger|gets larger",
            "increasing in size|increases in size",
            "growing larger|grows larger",
        ),
        ("becoming bigger and bigger|becomes bigger and bigger", "enlarging|enlarges"),
    ),
    "shrinking": _Words(
        (
            "shrinking|shrinks",
            "getting smaller|gets smaller",
            "becoming smaller|becomes smaller",
            "contracting|contracts",
            "dwindling|dwindles",
            "decreasing in size|decreases in size",
            "shrinking away|shrinks away",
            "scaling down|scales down",
        ),
        ("becoming smaller and smaller|becomes smaller and smaller", "reducing in size|reduces in size"),
    ),
}
_BACKGROUNDS: dict[str, _Words] = {
    "plain": _Words(
        (
            "on a plain background",
            "over a plain colour",
            "in front of a plain wall",
            "against an empty backdrop",
            "on one flat colour",
            "with nothing behind",
            "against a plain backdrop",
            "on a single-coloured background",
        ),
        ("before a blank wall", "with a solid colour behind it"),
    ),
    "gradient": _Words(
        (
            "on a gradient background",
            "over a smooth gradient",
            "in front of a gradient",
            "against a shaded gradient",
            "with a gradient as backdrop",
            "with a gradient behind",
            "on a colour gradient",
            "over a gradient of shades",
        ),
        ("before a gradient from dark to light", "with a gradient shade behind it"),
    ),
    "photo": _Words(
        (
            "on a photo background",
            "over a photograph",
            "in front of a photo",
            "against a photographic backdrop",
            "with a picture as backdrop",
            "with a photo behind",
            "on a photograph",
            "against a real photo",
        ),
        ("before a blurry photo", "with a photograph behind it"),
    ),
    "film": _Words(
        (
            "on a film background",
            "over a film scene",
            "in front of a film frame",
            "against a movie scene",
            "with a film still as backdrop",
            "with a film scene behind",
            "on a movie frame",
            "against a cartoon film",
        ),
        ("before a scene from a film", "with a movie still behind it"),
    ),
}


@dataclass(frozen=True)
class ClipLabel:
    """What one clip shows.

    Attributes:
        shape: One of `VOCABULARY["shape"]`; colour, motion and background likewise.
        wording: Which wording its caption uses, 0 to `WORDINGS` - 1; those from `TRAIN_WORDINGS` on are held out.
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
    noun, motion, background = (
        part.of(unseen)[int(u * len(part.of(unseen)))]
        for part, u in zip(
            (_NOUNS[label.shape], _MOTIONS[label.motion], _BACKGROUNDS[label.background]), choices, strict=True
        )
    )
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
        return _TEMPLATES.train[0], "", "{}", 0.0, 0.0, 0.0
    unseen = number >= TRAIN_WORDINGS
    u = np.random.default_rng([512, number]).random(6)
    templates, colours = _TEMPLATES.of(unseen), _COLOURS.of(unseen)
    prefix = "" if unseen else _PREFIXES[int(u[1] * len(_PREFIXES))]
    chosen = templates[number % len(templates)], prefix, colours[int(u[2] * len(colours))]
    return *chosen, *(float(x) for x in u[3:])


def label_indices(labels: Sequence[ClipLabel]) -> torch.Tensor:
    """Class indices of labels.

    Returns:
        (N, 4) int64, columns in the order of `ATTRIBUTES`.
    """
    rows = [[VOCABULARY[a].index(getattr(label, a)) for a in ATTRIBUTES] for label in labels]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), len(ATTRIBUTES))


def label_from(uniform: Sequence[float], *, held_out: bool) -> ClipLabel:
    """The label that three uniform draws choose: triple, background, wording (of training).

    Args:
        uniform: Three numbers in [0, 1).
        held_out: True for a held-out triple, False for a trainable one.
    """
    pool = triples(held_out)
    background = int(np.searchsorted(np.cumsum(BACKGROUND_SHARES)[:-1], uniform[1], side="right"))
    return ClipLabel(
        *pool[int(uniform[0] * len(pool))],
        VOCABULARY["background"][background],
        wording=int(uniform[2] * TRAIN_WORDINGS),
    )

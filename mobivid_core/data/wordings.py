"""The grammar of captions: templates, nouns, colours, motions and backgrounds, in training and held out of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Phrases of one part of the grammar: those of training, and those held out."""

    train: tuple[str, ...]
    unseen: tuple[str, ...]

    def phrases(self, unseen: bool) -> tuple[str, ...]:
        """Those of one kind."""
        return self.unseen if unseen else self.train


def _words(train: str, unseen: str) -> Words:
    """Phrases from two lists separated by semicolons."""
    return Words(tuple(train.split("; ")), tuple(unseen.split("; ")))


def _sideways(side: str) -> Words:
    """Motion to one side."""
    return _words(
        f"moving {side}|moves {side}; moving to the {side}|moves to the {side}; "
        f"sliding to the {side}|slides to the {side}; drifting {side}wards|drifts {side}wards; "
        f"going {side}|goes {side}; heading {side}|heads {side}; travelling {side}|travels {side}; "
        f"gliding to the {side}|glides to the {side}; floating {side}|floats {side}",
        f"shifting towards the {side}|shifts towards the {side}; "
        f"wandering over to the {side} side|wanders over to the {side} side",
    )


#: {c} colour phrase before its noun, {k} colour elsewhere, {n} noun, {P} motion as a participle, {F} motion as a
#: finite verb, {b} background; `*` takes a prefix.
TEMPLATES = _words(
    "*a {c} {n} {P} {b}; *a {c} {n} {P} {b}; {b}, a {c} {n} {P}; there is a {c} {n} {b}, {P}; "
    "*a {n} in {k}, {P}, {b}; *a {c} {n} that {F} {b}; a {c} {n} {F} {b}; {b}, a {c} {n} {F}; "
    "*one {c} {n}, {P}, {b}; *a {n} coloured {k} that {F}, {b}; {c} {n} {P} {b}; the {c} {n} {F} {b}; "
    "a {c} {n} {b}, and it {F}; {n}, {k}, {P}, {b}; *a {n} of {k} colour {P} {b}",
    "we see a {c} {n} {b} as it {F}; please show a {c} {n} {P} {b}; an animation where a {c} {n} {F} {b}; "
    "look, the {n} is {k} and {F} {b}",
)

PREFIXES = ("", "", "a video of ", "a clip of ", "footage of ", "video: ")

COLOURS = _words("{}; {}; bright {}; {}-coloured", "{}; vivid {}")

NOUNS: dict[str, Words] = {
    "star": _words("star; star shape; little star", "five-pointed star"),
    "heart": _words("heart; heart shape; little heart", "love heart"),
    "apple": _words("apple; ripe apple; little apple", "fresh apple"),
    "tree": _words("tree; small tree; cartoon tree", "leafy tree"),
    "house": _words("house; little house; small house", "cottage; home"),
    "car": _words("car; toy car; motor car", "automobile; vehicle"),
    "rocket": _words("rocket; space rocket; toy rocket", "rocket ship"),
    "sailboat": _words("sailboat; sailing boat; boat", "yacht; sailing ship"),
    "fish": _words("fish; little fish; cartoon fish", "aquarium fish"),
    "butterfly": _words("butterfly; little butterfly; cartoon butterfly", "winged butterfly"),
    "elephant": _words("elephant; small elephant; cartoon elephant", "baby elephant"),
    "mushroom": _words("mushroom; little mushroom; cartoon mushroom", "toadstool"),
}

#: Each phrase is `participle|finite verb`.
MOTIONS: dict[str, Words] = {
    "left": _sideways("left"),
    "right": _sideways("right"),
    "up": _words(
        "moving up|moves up; rising|rises; going up|goes up; climbing|climbs; floating upwards|floats upwards; "
        "heading up|heads up; ascending|ascends; drifting up|drifts up",
        "travelling to the top|travels to the top; lifting off upwards|lifts off upwards",
    ),
    "down": _words(
        "moving down|moves down; falling|falls; going down|goes down; sinking|sinks; dropping down|drops down; "
        "heading down|heads down; descending|descends; drifting downwards|drifts downwards",
        "travelling to the bottom|travels to the bottom; tumbling downwards|tumbles downwards",
    ),
    "circling": _words(
        "circling|circles; moving in a circle|moves in a circle; going round in circles|goes round in circles; "
        "orbiting|orbits; running in circles|runs in circles; circling around|circles around; "
        "looping around|loops around; revolving around a point|revolves around a point",
        "going round and round|goes round and round; tracing a circle|traces a circle",
    ),
    "still": _words(
        "standing still|stands still; not moving|does not move; staying still|stays still; "
        "staying motionless|stays motionless; resting|rests; staying in place|stays in place; "
        "keeping still|keeps still; standing motionless|stands motionless",
        "remaining in one spot|remains in one spot; holding still|holds still",
    ),
    "growing": _words(
        "growing|grows; getting bigger|gets bigger; becoming larger|becomes larger; expanding|expands; "
        "swelling|swells; getting larger|gets larger; increasing in size|increases in size; "
        "growing larger|grows larger",
        "becoming bigger and bigger|becomes bigger and bigger; enlarging|enlarges",
    ),
    "shrinking": _words(
        "shrinking|shrinks; getting smaller|gets smaller; becoming smaller|becomes smaller; contracting|contracts; "
        "dwindling|dwindles; decreasing in size|decreases in size; shrinking away|shrinks away; "
        "scaling down|scales down",
        "becoming smaller and smaller|becomes smaller and smaller; reducing in size|reduces in size",
    ),
}

BACKGROUNDS: dict[str, Words] = {
    "plain": _words(
        "on a plain background; over a plain colour; in front of a plain wall; against an empty backdrop; "
        "on one flat colour; with nothing behind; against a plain backdrop; on a single-coloured background",
        "before a blank wall; with a solid colour behind it",
    ),
    "gradient": _words(
        "on a gradient background; over a smooth gradient; in front of a gradient; against a shaded gradient; "
        "with a gradient as backdrop; with a gradient behind; on a colour gradient; over a gradient of shades",
        "before a gradient from dark to light; with a gradient shade behind it",
    ),
    "photo": _words(
        "on a photo background; over a photograph; in front of a photo; against a photographic backdrop; "
        "with a picture as backdrop; with a photo behind; on a photograph; against a real photo",
        "before a blurry photo; with a photograph behind it",
    ),
    "film": _words(
        "on a film background; over a film scene; in front of a film frame; against a movie scene; "
        "with a film still as backdrop; with a film scene behind; on a movie frame; against a cartoon film",
        "before a scene from a film; with a movie still behind it",
    ),
}

"""The grammar of captions: templates, nouns, colours, motions and backgrounds, in training and held out of it."""

from __future__ import annotations


class Words:
    """Phrases of one part of the grammar, from two lists separated by semicolons: those of training, and held out."""

    def __init__(self, train: str, unseen: str) -> None:
        self.train, self.unseen = tuple(train.split("; ")), tuple(unseen.split("; "))

    def phrases(self, unseen: bool) -> tuple[str, ...]:
        """Those of one kind."""
        return self.unseen if unseen else self.train


def _sideways(side: str) -> Words:
    """Motion to one side."""
    return Words(
        f"moving {side}|moves {side}; moving to the {side}|moves to the {side}; "
        f"sliding to the {side}|slides to the {side}; drifting {side}wards|drifts {side}wards; "
        f"going {side}|goes {side}; heading {side}|heads {side}; travelling {side}|travels {side}; "
        f"gliding to the {side}|glides to the {side}; floating {side}|floats {side}",
        f"shifting towards the {side}|shifts towards the {side}; "
        f"wandering over to the {side} side|wanders over to the {side} side",
    )


#: {c} colour phrase before its noun, {k} colour elsewhere, {n} noun, {P} motion as a participle, {F} motion as a
#: finite verb, {b} background; `*` takes a prefix.
TEMPLATES = Words(
    "*a {c} {n} {P} {b}; *a {c} {n} {P} {b}; {b}, a {c} {n} {P}; there is a {c} {n} {b}, {P}; "
    "*a {n} in {k}, {P}, {b}; *a {c} {n} that {F} {b}; a {c} {n} {F} {b}; {b}, a {c} {n} {F}; "
    "*one {c} {n}, {P}, {b}; *a {n} coloured {k} that {F}, {b}; {c} {n} {P} {b}; the {c} {n} {F} {b}; "
    "a {c} {n} {b}, and it {F}; {n}, {k}, {P}, {b}; *a {n} of {k} colour {P} {b}",
    "we see a {c} {n} {b} as it {F}; please show a {c} {n} {P} {b}; an animation where a {c} {n} {F} {b}; "
    "look, the {n} is {k} and {F} {b}",
)

PREFIXES = ("", "", "a video of ", "a clip of ", "footage of ", "video: ")

COLOURS = Words("{}; {}; bright {}; {}-coloured", "{}; vivid {}")

NOUNS: dict[str, Words] = {
    "star": Words("star; star shape; little star", "five-pointed star"),
    "heart": Words("heart; heart shape; little heart", "love heart"),
    "apple": Words("apple; ripe apple; little apple", "fresh apple"),
    "tree": Words("tree; small tree; cartoon tree", "leafy tree"),
    "house": Words("house; little house; small house", "cottage; home"),
    "car": Words("car; toy car; motor car", "automobile; vehicle"),
    "rocket": Words("rocket; space rocket; toy rocket", "rocket ship"),
    "sailboat": Words("sailboat; sailing boat; boat", "yacht; sailing ship"),
    "fish": Words("fish; little fish; cartoon fish", "aquarium fish"),
    "butterfly": Words("butterfly; little butterfly; cartoon butterfly", "winged butterfly"),
    "elephant": Words("elephant; small elephant; cartoon elephant", "baby elephant"),
    "mushroom": Words("mushroom; little mushroom; cartoon mushroom", "toadstool"),
}

#: Each phrase is `participle|finite verb`.
MOTIONS: dict[str, Words] = {
    "left": _sideways("left"),
    "right": _sideways("right"),
    "up": Words(
        "moving up|moves up; rising|rises; going up|goes up; climbing|climbs; floating upwards|floats upwards; "
        "heading up|heads up; ascending|ascends; drifting up|drifts up",
        "travelling to the top|travels to the top; lifting off upwards|lifts off upwards",
    ),
    "down": Words(
        "moving down|moves down; falling|falls; going down|goes down; sinking|sinks; dropping down|drops down; "
        "heading down|heads down; descending|descends; drifting downwards|drifts downwards",
        "travelling to the bottom|travels to the bottom; tumbling downwards|tumbles downwards",
    ),
    "circling": Words(
        "circling|circles; moving in a circle|moves in a circle; going round in circles|goes round in circles; "
        "orbiting|orbits; running in circles|runs in circles; circling around|circles around; "
        "looping around|loops around; revolving around a point|revolves around a point",
        "going round and round|goes round and round; tracing a circle|traces a circle",
    ),
    "still": Words(
        "standing still|stands still; not moving|does not move; staying still|stays still; "
        "staying motionless|stays motionless; resting|rests; staying in place|stays in place; "
        "keeping still|keeps still; standing motionless|stands motionless",
        "remaining in one spot|remains in one spot; holding still|holds still",
    ),
    "growing": Words(
        "growing|grows; getting bigger|gets bigger; becoming larger|becomes larger; expanding|expands; "
        "swelling|swells; getting larger|gets larger; increasing in size|increases in size; "
        "growing larger|grows larger",
        "becoming bigger and bigger|becomes bigger and bigger; enlarging|enlarges",
    ),
    "shrinking": Words(
        "shrinking|shrinks; getting smaller|gets smaller; becoming smaller|becomes smaller; contracting|contracts; "
        "dwindling|dwindles; decreasing in size|decreases in size; shrinking away|shrinks away; "
        "scaling down|scales down",
        "becoming smaller and smaller|becomes smaller and smaller; reducing in size|reduces in size",
    ),
}

BACKGROUNDS: dict[str, Words] = {
    "plain": Words(
        "on a plain background; over a plain colour; in front of a plain wall; against an empty backdrop; "
        "on one flat colour; with nothing behind; against a plain backdrop; on a single-coloured background",
        "before a blank wall; with a solid colour behind it",
    ),
    "gradient": Words(
        "on a gradient background; over a smooth gradient; in front of a gradient; against a shaded gradient; "
        "with a gradient as backdrop; with a gradient behind; on a colour gradient; over a gradient of shades",
        "before a gradient from dark to light; with a gradient shade behind it",
    ),
    "photo": Words(
        "on a photo background; over a photograph; in front of a photo; against a photographic backdrop; "
        "with a picture as backdrop; with a photo behind; on a photograph; against a real photo",
        "before a blurry photo; with a photograph behind it",
    ),
    "film": Words(
        "on a film background; over a film scene; in front of a film frame; against a movie scene; "
        "with a film still as backdrop; with a film scene behind; on a movie frame; against a cartoon film",
        "before a scene from a film; with a movie still behind it",
    ),
}

"""Which measures to trust: the judge's accuracy, a reading without a network, and the space of distances.

A distance between sets of clips is only as good as the features it is taken in: the judge learnt to look through blur
and noise, so a distance in its features hardly notices either. The space of headline numbers and bars is therefore not
named anywhere: it is the one whose distance passed the trials of the measures (`trials.run_trials`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from mobivid_core.data.captions import ATTRIBUTES, label_indices
from mobivid_core.measure.judge import accuracy
from mobivid_core.measure.minivbench import READBACK, SPACES, Space
from mobivid_core.measure.trials import verdicts

if TYPE_CHECKING:
    from mobivid_core.measure.generation import Evaluator


def trusted_space(trials: pd.DataFrame) -> Space:
    """The feature space that headline distances and bars are taken from, by what the trials found.

    Spaces whose distance moved under all damage that it has to notice come first; among them the one whose weakest
    reaction is largest against its own noise. Where none passed, the one that missed least is returned: whoever shows
    a number from it has to say so (`Space.finding`).
    """
    tried = space_table(trials)
    missed = tried["missed"].map(lambda names: tuple(filter(None, names.split(", "))))
    best = min(tried.index, key=lambda row: (len(missed[row]), -tried.loc[row, "weakest"]))
    return replace(SPACES[tried.loc[best, "space"]], missed=missed[best])


def space_table(trials: pd.DataFrame) -> pd.DataFrame:
    """What the trials say of each feature space, a row a space.

    space (key of `SPACES`), features (its title), must_move, missed and weakest of `verdicts`, passed ("yes" or "no").
    """
    tested = verdicts(trials).set_index("measure")
    rows = [
        {"space": name, "features": space.title, **tested.loc[space.real, ["must_move", "missed", "weakest"]]}
        for name, space in SPACES.items()
    ]
    table = pd.DataFrame(rows)
    return table.assign(passed=["no" if names else "yes" for names in table["missed"]])


def trust_table(recorded: pd.DataFrame, evaluator: Evaluator) -> pd.DataFrame:
    """The accuracy that was recorded when the judge was trained (`accuracy.csv`), and what is measured now.

    Readers are "judge" and "no network"; attributes that one cannot tell are blank.
    """
    truth = label_indices(evaluator.labels)
    rows = []
    for title, measures in (("real", evaluator.real), ("reconstructed", evaluator.reconstruction)):
        clips = f"{title} test clips ({len(measures)})"
        right = accuracy(measures.classes, truth)
        rows.append({"reader": "judge", "clips": clips, **{k: v.mean().item() for k, v in right.items()}})
        read = measures.readback == truth[:, [ATTRIBUTES.index(name) for name in READBACK.values()]]
        shares = zip(READBACK.values(), read.float().mean(0).tolist(), strict=True)
        rows.append({"reader": "no network", "clips": clips, **dict(shares)})
    now = pd.DataFrame(rows)
    before = recorded.assign(reader="judge", clips="when trained: " + recorded.clips)
    return pd.concat([before, now], ignore_index=True)[["reader", "clips", *ATTRIBUTES, "all"]]
